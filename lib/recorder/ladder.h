// Decides which threshold on memory use calls for a dump.
//
// A rung fires when the value reaches it, and is armed again once the value has fallen clearly
// below (a twentieth of the rung), so that use which swings around a rung makes one dump, not
// hundreds. After a rung fired, others wait for the cooldown; but one that is higher than the last
// to fire never waits: near the limit every rung counts. When several are reached at once the
// highest fires and the ones below are done with, since their dumps would show the same.
//
// Rungs in percent move with the limit. Pure: no clock, no I/O. Not thread-safe.
#pragma once

#include <cstdint>

#include "lib/box/format.h"
#include "lib/recorder/settings.h"

namespace heapflare::recorder {

class Ladder {
 public:
  static constexpr int64_t kCooldown = 60'000'000'000;  // ns

  void Configure(const Rung* rungs, uint32_t count);

  // The rung that fires now (its index), or -1. `value` and `limit` in bytes, limit box::kUnknown
  // if there is none; `now` in ns, of any clock that does not go back.
  int Step(uint64_t value, uint64_t limit, int64_t now);

  // The lowest rung above `value` that is armed; box::kUnknown if there is none.
  uint64_t NextAbove(uint64_t value, uint64_t limit) const;

  // Bytes at which rung `index` lies; box::kUnknown for a percentage of no limit.
  uint64_t Threshold(uint32_t index, uint64_t limit) const;

  const Rung& rung(uint32_t index) const { return rungs_[index]; }
  uint32_t count() const { return count_; }

 private:
  Rung rungs_[kMaxRungs] = {};
  bool fired_[kMaxRungs] = {};
  uint32_t count_ = 0;
  uint64_t last_threshold_ = 0;
  int64_t last_time_ = 0;
  bool any_fired_ = false;
};

}  // namespace heapflare::recorder
