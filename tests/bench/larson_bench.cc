// larson_bench [COUNT [THREADS]]: what Larson and Krishnan's benchmark of 1998 does: threads replace
// random ones of their 1,000 blocks, and after COUNT / 10 replacements hand them to a new thread and
// end, so that blocks outlive the thread that allocated them. Prints ns per replacement, by the wall clock.
#include <thread>

#include "tests/bench/measure.h"

using namespace heapflare::bench;

namespace {

constexpr int kGenerations = 10;
constexpr size_t kBlocks = 1000;

struct Lineage {
  std::vector<void*> blocks = std::vector<void*>(kBlocks);
  uint64_t random = 0;
};

void Replace(Lineage* lineage, long count) {
  uint64_t random = lineage->random;
  for (long i = 0; i < count; ++i) {
    random = random * 6364136223846793005 + 1442695040888963407;
    void*& block = lineage->blocks[(random >> 33) % kBlocks];
    free(block);
    block = malloc(16 + (random >> 45) % 1025);
    if (block == nullptr) abort();
    static_cast<char*>(block)[0] = 1;
  }
  lineage->random = random;
}

}  // namespace

int main(int argc, char** argv) {
  const long count = Argument(argc, argv, 1, 3'000'000);
  std::vector<Lineage> lineages(static_cast<size_t>(Argument(argc, argv, 2, 2)));
  for (size_t i = 0; i < lineages.size(); ++i) lineages[i].random = i + 1;
  const int64_t start = Nanoseconds(CLOCK_MONOTONIC);
  std::vector<std::thread> threads;
  for (Lineage& lineage : lineages) {
    threads.emplace_back([&lineage, count] {
      for (int generation = 0; generation < kGenerations; ++generation) {
        std::thread(Replace, &lineage, count / kGenerations).join();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  PrintNanoseconds(static_cast<double>(Nanoseconds(CLOCK_MONOTONIC) - start) /
                   static_cast<double>(count));
}
