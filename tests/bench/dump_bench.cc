// dump_bench FILE [CALLS [STACKS [LIVE]]]: makes LIVE blocks live, allocated by STACKS different
// stacks of some 20 frames, and writes a profile to FILE with heapflare_dump, CALLS times. Meant
// for HEAPFLARE_SAMPLE_INTERVAL=1 and a box with room for them. Prints
//   ns          of each call
//   rss_growth  the peak of resident memory during each call beyond what was resident before
//   heap_growth what malloc held and where the break was, after all calls against before
#include <malloc.h>

#include "tests/bench/measure.h"
#include "tests/bench/proc_status.h"

using namespace heapflare::bench;

namespace {

constexpr int kDepth = 18;
constexpr size_t kBlockSize = 64;

// Which of the two is called is one bit of `path`: so a number makes a stack.
[[gnu::noinline]] void* Zero(uint32_t path, int depth);
[[gnu::noinline]] void* One(uint32_t path, int depth);

[[gnu::always_inline]] inline void* Descend(uint32_t path, int depth) {
  void* block = nullptr;
  if (depth == 0) {
    block = malloc(kBlockSize);
  } else if ((path & 1) == 0) {
    block = Zero(path >> 1, depth - 1);
  } else {
    block = One(path >> 1, depth - 1);
  }
  asm volatile("" : "+r"(block));  // no tail call, which would leave no frame
  return block;
}

// Not equal, or the compiler might make one function of the two.
void* Zero(uint32_t path, int depth) {
  asm volatile("nop");
  return Descend(path, depth);
}

void* One(uint32_t path, int depth) {
  asm volatile("nop; nop");
  return Descend(path, depth);
}

// From now on VmHWM is the peak since now.
bool ResetPeak() {
  const int file = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
  const bool done = file >= 0 && write(file, "5", 1) == 1;
  if (file >= 0) close(file);
  return done;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const auto calls = static_cast<size_t>(Argument(argc, argv, 2, 7));
  const auto stacks = static_cast<uint32_t>(Argument(argc, argv, 3, 20'000));
  const auto live = static_cast<uint32_t>(Argument(argc, argv, 4, 100'000));
  for (uint32_t i = 0; i < live; ++i) {
    if (Zero(i % stacks, kDepth) == nullptr) return 1;
  }
  std::vector<double> times(calls);
  std::vector<long> growths(calls);
  StatusBytes("VmRSS:");
  const struct mallinfo2 heap = mallinfo2();
  const char* const end = static_cast<char*>(sbrk(0));
  for (size_t i = 0; i < calls; ++i) {
    const bool reset = ResetPeak();
    const long resident = StatusBytes("VmRSS:");
    const int64_t start = Nanoseconds(CLOCK_MONOTONIC);
    const int error = heapflare_dump(argv[1]);
    times[i] = static_cast<double>(Nanoseconds(CLOCK_MONOTONIC) - start);
    growths[i] = reset ? StatusBytes("VmHWM:") - resident : -1;
    if (error != 0) {
      fprintf(stderr, "heapflare_dump: error %d\n", error);
      return 1;
    }
  }
  const struct mallinfo2 after = mallinfo2();
  const auto held = static_cast<long>(after.uordblks + after.hblkhd - heap.uordblks - heap.hblkhd);
  const long moved = static_cast<char*>(sbrk(0)) - end;
  printf("{\"active\": %d, \"heap_growth\": %ld, \"ns\": [", heapflare_active(), held + moved);
  for (size_t i = 0; i < calls; ++i) printf("%s%.0f", i == 0 ? "" : ", ", times[i]);
  printf("], \"rss_growth\": [");
  for (size_t i = 0; i < calls; ++i) printf("%s%ld", i == 0 ? "" : ", ", growths[i]);
  printf("]}\n");
}
