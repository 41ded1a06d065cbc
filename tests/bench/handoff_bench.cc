// handoff_bench [COUNT]: one thread allocates blocks of 16 to 1,040 bytes, another frees them. Prints
// ns per block, by the wall clock.
#include <atomic>
#include <thread>

#include "tests/bench/measure.h"

using namespace heapflare::bench;

namespace {

// One writer, one reader; each keeps its own index on a cache line of its own.
struct Ring {
  static constexpr size_t kSlots = 4096;
  alignas(64) std::atomic<size_t> written = 0;
  alignas(64) std::atomic<size_t> read = 0;
  void* slots[kSlots] = {};

  void Put(void* block) {
    const size_t at = written.load(std::memory_order_relaxed);
    while (at - read.load(std::memory_order_acquire) == kSlots) std::this_thread::yield();
    slots[at % kSlots] = block;
    written.store(at + 1, std::memory_order_release);
  }
  void* Get() {
    const size_t at = read.load(std::memory_order_relaxed);
    while (written.load(std::memory_order_acquire) == at) std::this_thread::yield();
    void* const block = slots[at % kSlots];
    read.store(at + 1, std::memory_order_release);
    return block;
  }
};

Ring ring;

}  // namespace

int main(int argc, char** argv) {
  const long count = Argument(argc, argv, 1, 3'000'000);
  const int64_t start = Nanoseconds(CLOCK_MONOTONIC);
  std::thread consumer([count] {
    for (long i = 0; i < count; ++i) free(ring.Get());
  });
  for (long i = 0; i < count; ++i) {
    auto* const block = static_cast<char*>(malloc(16 + static_cast<size_t>(i * 7919 % 1025)));
    if (block == nullptr) abort();
    block[0] = 1;
    ring.Put(block);
  }
  consumer.join();
  PrintNanoseconds(static_cast<double>(Nanoseconds(CLOCK_MONOTONIC) - start) /
                   static_cast<double>(count));
}
