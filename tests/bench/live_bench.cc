// live_bench LIVE [COUNT]: what free costs while LIVE blocks of 64 KiB are held, which are sampled if
// the interval is far below that. COUNT blocks of 64 bytes are allocated and then freed, in ten parts;
// prints the median ns per free, by processor time.
#include "tests/bench/measure.h"

using namespace heapflare::bench;

int main(int argc, char** argv) {
  constexpr int kParts = 10;
  const long live = Argument(argc, argv, 1, 1000);
  const long count = std::max(1L, Argument(argc, argv, 2, 1'000'000) / kParts);
  for (long i = 0; i < live; ++i) Escape(malloc(64 << 10));
  std::vector<double> parts(kParts);
  std::vector<void*> blocks(static_cast<size_t>(count));
  for (double& part : parts) {
    for (void*& block : blocks) block = malloc(64);
    const int64_t start = Nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
    for (void* block : blocks) free(block);
    part = static_cast<double>(Nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - start) /
           static_cast<double>(count);
  }
  PrintNanoseconds(Median(parts));
}
