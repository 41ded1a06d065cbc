// Holds some memory, writes a profile, lets one function hold more and another less, and writes a
// second profile. Nothing in it depends on time, addresses or chance.
//
//   growth FIRST SECOND     then waits for the end of its standard input
#include <unistd.h>

#include <cstdlib>

#include "heapflare/heapflare.h"

namespace {

constexpr int kBlocks = 1000;
void* held[kBlocks];

}  // namespace

#define HOLDER(name)                                                \
  extern "C" [[gnu::noinline]] void* workload_##name(size_t size) { \
    void* block = malloc(size);                                     \
    asm volatile("" : "+r"(block));                                 \
    return block;                                                   \
  }
HOLDER(steady)
HOLDER(grows)
HOLDER(shrinks)

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  for (int i = 0; i < kBlocks; ++i) {
    workload_steady(2000);
    held[i] = workload_shrinks(3000);
  }
  workload_grows(100);
  if (heapflare_dump(argv[1]) != 0) return 1;
  for (int i = 0; i < kBlocks; ++i) workload_grows(5000);
  for (int i = 0; i < kBlocks / 2; ++i) free(held[i]);
  if (heapflare_dump(argv[2]) != 0) return 1;
  // Not by stdio, which would allocate a buffer.
  if (write(STDOUT_FILENO, "ready\n", 6) != 6) return 1;
  char byte;
  while (read(STDIN_FILENO, &byte, 1) > 0) {
  }
  return 0;
}
