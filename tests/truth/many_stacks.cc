// Allocates from as many different stacks as it is told to, and keeps everything.
//
//   many_stacks STACKS SIZE REPEATS PROFILE
#include <cstdio>
#include <cstdlib>

#include "heapflare/heapflare.h"

// The bits of a stack's number say which of two functions calls at each of 16 levels.
constexpr int kLevels = 16;

extern "C" [[gnu::noinline]] void workload_leaf(size_t size, unsigned repeats) {
  for (unsigned i = 0; i < repeats; ++i) {
    void* block = malloc(size);
    asm volatile("" : "+r"(block));
  }
}

template <int kLevel>
void Descend(unsigned stack, size_t size, unsigned repeats);

template <int kLevel, int kBit>
[[gnu::noinline]] void Step(unsigned stack, size_t size, unsigned repeats) {
  Descend<kLevel - 1>(stack, size, repeats);
  asm volatile("");  // not a tail call, and not the same code as its twin
  if (kBit != 0) asm volatile("nop");
}

template <int kLevel>
[[gnu::always_inline]] inline void Descend(unsigned stack, size_t size, unsigned repeats) {
  if constexpr (kLevel == 0) {
    workload_leaf(size, repeats);
  } else if ((stack >> (kLevel - 1) & 1) != 0) {
    Step<kLevel, 1>(stack, size, repeats);
  } else {
    Step<kLevel, 0>(stack, size, repeats);
  }
}

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const auto stacks = static_cast<unsigned>(atoi(argv[1]));
  for (unsigned stack = 0; stack < stacks; ++stack) {
    Descend<kLevels>(stack, strtoul(argv[2], nullptr, 10), static_cast<unsigned>(atoi(argv[3])));
  }
  const int error = heapflare_dump(argv[4]);
  if (error != 0) fprintf(stderr, "many_stacks: heapflare_dump: error %d\n", error);
  return error == 0 ? 0 : 1;
}
