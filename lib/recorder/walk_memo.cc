#include "lib/recorder/walk_memo.h"

namespace heapflare::recorder {

// Not in the header: an inline variable is exported, whatever its visibility.
constinit const std::array<uint64_t, FrameHash::kMost + 1> FrameHash::kPowers = [] {
  std::array<uint64_t, FrameHash::kMost + 1> powers = {1};
  for (uint32_t i = 1; i <= kMost; ++i) powers[i] = powers[i - 1] * kBase;
  return powers;
}();

void Recollection::Keep(bool at_end) {
  const bool too_many = new_count_ > WalkMemo::kNewFrames;
  uint32_t count = too_many ? 0 : new_count_;
  uint32_t end = met_at_;
  if (!met_) {
    // Anything: only differences of sums count.
    memo_.last_sum_ = 0;
    memo_.complete_ = at_end && !too_many;
    end = last_ = first_;
  } else if (at_end && !broken_) {
    memo_.complete_ = true;
  }
  first_ = end - count;
  if (last_ - first_ > WalkMemo::kFrames) {
    last_ = first_ + WalkMemo::kFrames;
    memo_.last_sum_ = memo_.sum(last_);
    memo_.complete_ = false;
  }
  for (uint64_t sum = end == last_ ? memo_.last_sum_ : memo_.sum(end); count > 0; --end) {
    const WalkMemo::Frame& added = memo_.new_frames_[--count];
    WalkMemo::Frame& frame = memo_.at(end - 1);
    frame = added;
    if (added.fp_word == nullptr) frame.fp_word = &frame.fp;
    sum = FrameHash::Mix(added.pc) + FrameHash::kBase * sum;
    memo_.sum(end - 1) = sum;
  }
  memo_.generation_ = generation_;
  memo_.first_ = first_;
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  memo_.last_ = last_;
}

}  // namespace heapflare::recorder
