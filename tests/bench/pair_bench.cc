// pair_bench [COUNT [cpu|wall]]: malloc(64) and free, COUNT times. Prints ns per pair.
//
// In ten parts, of which the median counts: an interruption spoils one part. By processor time,
// which includes the recorder's own thread; by wall clock when a peer works in another process.
#include <cstring>

#include "tests/bench/measure.h"

using namespace heapflare::bench;

int main(int argc, char** argv) {
  constexpr int kParts = 10;
  const long count = std::max(1L, Argument(argc, argv, 1, 10'000'000) / kParts);
  const bool wall = argc > 2 && strcmp(argv[2], "wall") == 0;
  const clockid_t clock = wall ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID;
  std::vector<double> parts(kParts);
  for (double& part : parts) {
    const int64_t start = Nanoseconds(clock);
    for (long i = 0; i < count; ++i) {
      void* const block = malloc(64);
      Escape(block);
      free(block);
    }
    part = static_cast<double>(Nanoseconds(clock) - start) / static_cast<double>(count);
  }
  PrintNanoseconds(Median(parts));
}
