// threads_bench [COUNT]: COUNT threads one after the other, each of which allocates and frees 100
// blocks of 1 KiB. Prints ns per thread, by the wall clock; the median of ten parts.
#include <thread>

#include "tests/bench/measure.h"

using namespace heapflare::bench;

int main(int argc, char** argv) {
  constexpr int kParts = 10;
  const long count = std::max(1L, Argument(argc, argv, 1, 3'000) / kParts);
  std::vector<double> parts(kParts);
  for (double& part : parts) {
    const int64_t start = Nanoseconds(CLOCK_MONOTONIC);
    for (long i = 0; i < count; ++i) {
      std::thread([] {
        void* blocks[100];
        for (void*& block : blocks) Escape(block = malloc(1024));
        for (void* block : blocks) free(block);
      }).join();
    }
    part = static_cast<double>(Nanoseconds(CLOCK_MONOTONIC) - start) / static_cast<double>(count);
  }
  PrintNanoseconds(Median(parts));
}
