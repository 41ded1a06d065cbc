// churn_bench [COUNT [cpu|wall [THREADS [DEPTH]]]]: each thread replaces a random one of its 20,000
// blocks, COUNT times, DEPTH calls deep (20). Prints ns per replacement, one malloc and one free.
//
// Blocks have 16 to 1,040 bytes, one in 4,096 has 64 KiB: 544 in the mean. Parts and clocks as in
// pair_bench; with several threads the clock must be the wall's, which sees them wait for each
// other.
#include <atomic>
#include <cstring>
#include <thread>

#include "tests/bench/measure.h"

using namespace heapflare::bench;

namespace {

constexpr int kParts = 10;
constexpr uint32_t kSlots = 20'000;

struct Work {
  long count;  // in a part
  clockid_t clock;
  uint64_t random;
  std::atomic<int>* missing;  // threads that have not filled their slots yet
  std::vector<double> parts;
};

uint64_t Next(uint64_t* random) {
  // xorshift64
  *random ^= *random << 13;
  *random ^= *random >> 7;
  *random ^= *random << 17;
  return *random;
}

void* NewBlock(uint64_t random) {
  const uint64_t low = random >> 20 & 4095;
  const size_t size = low == 0 ? 64 << 10 : 16 + (random >> 32) % 1025;
  auto* const block = static_cast<char*>(malloc(size));
  if (block == nullptr) abort();
  block[0] = 1;
  Escape(block);
  return block;
}

void Churn(Work* work) {
  std::vector<void*> slots(kSlots);
  for (void*& slot : slots) slot = NewBlock(Next(&work->random));
  work->missing->fetch_sub(1);
  while (work->missing->load() > 0) std::this_thread::yield();
  for (double& part : work->parts) {
    const int64_t start = Nanoseconds(work->clock);
    for (long i = 0; i < work->count; ++i) {
      const uint64_t random = Next(&work->random);
      void*& slot = slots[(random & 0xfffff) % kSlots];
      free(slot);
      slot = NewBlock(random);
    }
    part = static_cast<double>(Nanoseconds(work->clock) - start) / static_cast<double>(work->count);
  }
  for (void* slot : slots) free(slot);
}

[[gnu::noinline]] void Descend(int depth, Work* work) {
  if (depth == 0) {
    Churn(work);
  } else {
    Descend(depth - 1, work);
  }
  asm volatile("");  // no tail call, which would leave no frame
}

}  // namespace

int main(int argc, char** argv) {
  const long count = std::max(1L, Argument(argc, argv, 1, 3'000'000) / kParts);
  const bool wall = argc > 2 && strcmp(argv[2], "wall") == 0;
  const auto threads = static_cast<int>(Argument(argc, argv, 3, 1));
  const auto depth = static_cast<int>(Argument(argc, argv, 4, 20));
  const clockid_t clock = wall ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID;
  std::atomic<int> missing = threads;
  std::vector<Work> works;
  for (int i = 0; i < threads; ++i) {
    works.push_back({.count = count,
                     .clock = clock,
                     .random = 0x9e3779b97f4a7c15 + static_cast<uint64_t>(i),
                     .missing = &missing,
                     .parts = std::vector<double>(kParts)});
  }
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(Descend, depth, &works[i]);
  Descend(depth, &works[0]);
  for (std::thread& other : others) other.join();
  std::vector<double> parts;
  for (const Work& work : works) parts.insert(parts.end(), work.parts.begin(), work.parts.end());
  PrintNanoseconds(Median(parts));
}
