// stacks_bench [COUNT]: allocates from 32,768 distinct stacks, 15 calls deep, in random order; every
// sixteenth allocation is followed by an exception that unwinds them all. Prints ns per allocation, by
// processor time; the median of ten parts.
#include <stdexcept>
#include <string>

#include "tests/bench/measure.h"

using namespace heapflare::bench;

namespace {

constexpr int kLevels = 15;

[[gnu::noinline]] void Left(uint32_t path, int level);

// Two functions call each other or themselves, by the bits of `path`.
[[gnu::noinline]] void Right(uint32_t path, int level) {
  if (level == kLevels) {
    const std::string text(path % 900 + 100, 'x');
    Escape(const_cast<char*>(text.data()));
    if (path >> kLevels == 0) throw std::runtime_error(text);
  } else if ((path >> level & 1) != 0) {
    Left(path, level + 1);
  } else {
    Right(path, level + 1);
  }
  asm volatile("");  // no tail call, which would leave no frame
}

[[gnu::noinline]] void Left(uint32_t path, int level) {
  if (level < kLevels && (path >> level & 1) == 0) {
    Left(path, level + 1);
  } else {
    Right(path, level < kLevels ? level + 1 : level);
  }
  asm volatile("");
}

}  // namespace

int main(int argc, char** argv) {
  constexpr int kParts = 10;
  const long count = std::max(1L, Argument(argc, argv, 1, 500'000) / kParts);
  std::vector<double> parts(kParts);
  uint64_t random = 1;
  for (double& part : parts) {
    const int64_t start = Nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
    for (long i = 0; i < count; ++i) {
      random = random * 6364136223846793005 + 1442695040888963407;
      try {
        Right(static_cast<uint32_t>(random >> 45),
              0);  // 19 bits: the upper four are 0 in one of 16
      } catch (const std::runtime_error& error) {
        Escape(const_cast<char*>(error.what()));
      }
    }
    part = static_cast<double>(Nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - start) /
           static_cast<double>(count);
  }
  PrintNanoseconds(Median(parts));
}
