// realloc_bench [COUNT]: blocks that grow from 16 bytes to 64 KiB by half each time, as strings and
// vectors do. Prints ns per realloc, by processor time; the median of ten parts.
#include "tests/bench/measure.h"

using namespace heapflare::bench;

int main(int argc, char** argv) {
  constexpr int kParts = 10;
  const long count = std::max(1L, Argument(argc, argv, 1, 1'000'000) / kParts);
  std::vector<double> parts(kParts);
  for (double& part : parts) {
    const int64_t start = Nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
    void* block = nullptr;
    size_t size = 16;
    for (long i = 0; i < count; ++i) {
      block = realloc(block, size);
      if (block == nullptr) abort();
      Escape(block);
      size += size / 2;
      if (size > 64 << 10) {
        free(block);
        block = nullptr;
        size = 16;
      }
    }
    free(block);
    part = static_cast<double>(Nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - start) /
           static_cast<double>(count);
  }
  PrintNanoseconds(Median(parts));
}
