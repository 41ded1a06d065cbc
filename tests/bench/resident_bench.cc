// resident_bench [COUNT]: what is resident with COUNT live blocks of 64 KiB. Prints bytes:
// {"rss": ..., "active": ...}.
//
// The blocks are not touched, so that the heap itself weighs little beside the recorder. Not by
// calloc: glibc's clears two blocks of three here.
#include "tests/bench/measure.h"
#include "tests/bench/proc_status.h"

using namespace heapflare::bench;

int main(int argc, char** argv) {
  const long count = Argument(argc, argv, 1, 16384);
  for (long i = 0; i < count; ++i) {
    void* const block = malloc(64 << 10);
    if (block == nullptr) return 1;
    Escape(block);
  }
  printf("{\"rss\": %ld, \"active\": %d}\n", StatusBytes("VmRSS:"), heapflare_active());
}
