// A lock that is only ever tried, by threads that may be taken away while they hold it.
//
// A signal handler that jumps out of the recorder (siglongjmp), or an asynchronous cancellation,
// leaves whatever is held held for good. So each holding has a number, and the recorder's own thread,
// which comes by again and again, takes the lock away from one that has lasted too long. What it
// guards must bear two at it then: wrong for a while, but never out of bounds.
//
// Valid when all zero. Async-signal-safe; nobody waits.
#pragma once

#include <atomic>
#include <cstdint>

namespace heapflare::recorder {

class TriedLock {
 public:
  // The number of this holding, which is odd; 0: another one holds it.
  uint64_t Try() {
    uint64_t free = word_.load(std::memory_order_relaxed);
    if ((free & 1) != 0 ||
        !word_.compare_exchange_strong(free, free + 1, std::memory_order_acquire)) {
      return 0;
    }
    return free + 1;
  }

  void Release(uint64_t holding) {
    // Unless it was taken away.
    word_.compare_exchange_strong(holding, holding + 1, std::memory_order_release);
  }

  // The recorder's thread failed to get it, at `now` (ns): ends a holding that it has met for
  // kTooLong. Holdings last for microseconds; a thread that is kept from running, a second or two.
  void EndIfAbandoned(int64_t now) {
    const uint64_t holding = word_.load(std::memory_order_relaxed);
    if (holding != met_) {
      met_ = holding;
      met_first_ = now;
    } else if ((holding & 1) != 0 && now - met_first_ > kTooLong) {
      Release(holding);
    }
  }

  // In a forked child, where no holder runs.
  void Reset() { word_.store(0, std::memory_order_relaxed); }

 private:
  static constexpr int64_t kTooLong = 5'000'000'000;

  std::atomic<uint64_t> word_ = 0;
  uint64_t met_ = 0;
  int64_t met_first_ = 0;
};

}  // namespace heapflare::recorder
