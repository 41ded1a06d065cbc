// live_bench LIVE [COUNT [BYTES]]: what free costs while LIVE blocks are held. They have 64 KiB, so
// that an interval of that size samples most of them; or BYTES, and then all are recorded. COUNT
// blocks of 64 bytes are allocated and then freed, in ten parts;
// prints the median ns per free, by processor time.
#include "tests/bench/measure.h"

using namespace heapflare::bench;

int main(int argc, char** argv) {
  constexpr int kParts = 10;
  const long live = Argument(argc, argv, 1, 1000);
  const long count = std::max(1L, Argument(argc, argv, 2, 1'000'000) / kParts);
  const long bytes = Argument(argc, argv, 3, 0);
  const size_t interval = heapflare_sample_interval();
  if (bytes > 0) heapflare_set_sample_interval(1);
  // The interval counts from a thread's next sample on; a large block always comes by there.
  Escape(malloc(64 << 20));
  for (long i = 0; i < live; ++i) Escape(malloc(static_cast<size_t>(bytes > 0 ? bytes : 64 << 10)));
  if (bytes > 0) heapflare_set_sample_interval(interval);
  Escape(malloc(64 << 20));
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
