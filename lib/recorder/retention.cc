#include "lib/recorder/retention.h"

namespace heapflare::recorder {

bool Retention::Add(const Kept& dump, uint32_t keep, Kept* victim) {
  kept_[count_++] = dump;
  if (count_ <= keep) return false;
  uint32_t largest = 0;
  for (uint32_t i = 1; i < count_; ++i) {
    if (kept_[i].live_bytes >= kept_[largest].live_bytes) largest = i;
  }
  const uint32_t oldest = largest == 0 ? 1 : 0;
  // Only the latest and the largest are left: both stay, even where one was to be kept.
  if (oldest == count_ - 1) return false;
  *victim = kept_[oldest];
  for (uint32_t i = oldest + 1; i < count_; ++i) kept_[i - 1] = kept_[i];
  --count_;
  return true;
}

}  // namespace heapflare::recorder
