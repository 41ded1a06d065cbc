#include "lib/recorder/ladder.h"

namespace heapflare::recorder {

void Ladder::Configure(const Rung* rungs, uint32_t count) {
  *this = Ladder();
  for (uint32_t i = 0; i < count; ++i) rungs_[i] = rungs[i];
  count_ = count;
}

uint64_t Ladder::Threshold(uint32_t index, uint64_t limit) const {
  const Rung& rung = rungs_[index];
  if (rung.percent == 0) return rung.bytes;
  if (limit == box::kUnknown) return box::kUnknown;
  constexpr uint64_t kWhole = 10000;
  return limit / kWhole * rung.percent + limit % kWhole * rung.percent / kWhole;
}

int Ladder::Step(uint64_t value, uint64_t limit, int64_t now) {
  const bool cooling = any_fired_ && now - last_time_ < kCooldown;
  int highest = -1;
  uint64_t highest_threshold = 0;
  for (uint32_t i = 0; i < count_; ++i) {
    const uint64_t threshold = Threshold(i, limit);
    if (value < threshold - threshold / 20) fired_[i] = false;
    if (fired_[i] || value < threshold || (cooling && threshold <= last_threshold_)) continue;
    if (highest < 0 || threshold > highest_threshold) {
      highest = static_cast<int>(i);
      highest_threshold = threshold;
    }
  }
  if (highest < 0) return -1;
  for (uint32_t i = 0; i < count_; ++i) {
    if (Threshold(i, limit) <= highest_threshold) fired_[i] = true;
  }
  any_fired_ = true;
  last_threshold_ = highest_threshold;
  last_time_ = now;
  return highest;
}

uint64_t Ladder::NextAbove(uint64_t value, uint64_t limit) const {
  uint64_t next = box::kUnknown;
  for (uint32_t i = 0; i < count_; ++i) {
    const uint64_t threshold = Threshold(i, limit);
    if (!fired_[i] && threshold > value && threshold < next) next = threshold;
  }
  return next;
}

}  // namespace heapflare::recorder
