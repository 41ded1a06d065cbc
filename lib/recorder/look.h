// One look at memory at a time: by the recorder's thread on its ticks (watch.cc), by allocating
// threads on the allocation clock (memory_clock.cc).
//
// Hooks only ever try; see tried_lock.h. What a look changes (ladder, slope, the watched level) is
// guarded by it.
#pragma once

#include <atomic>
#include <cstdint>

#include "lib/box/format.h"
#include "lib/recorder/tried_lock.h"

namespace heapflare::recorder {

extern constinit TriedLock looking __attribute__((visibility("hidden")));

class TryLook {
 public:
  // Tries again `more` times, while others run.
  explicit TryLook(int more = 0);
  ~TryLook() {
    if (holding_ != 0) looking.Release(holding_);
  }
  TryLook(const TryLook&) = delete;
  TryLook& operator=(const TryLook&) = delete;
  explicit operator bool() const { return holding_ != 0; }

 private:
  uint64_t holding_;
};

// What the recorder's thread found when it looked last, for hooks.
struct LastLook {
  std::atomic<bool> taken;      // there was one
  std::atomic<uint64_t> limit;  // bytes; box::kUnknown: none
  std::atomic<uint64_t> time;   // CLOCK_MONOTONIC, ns
};
extern constinit LastLook last_look __attribute__((visibility("hidden")));

}  // namespace heapflare::recorder
