// What the last walk of a thread met, so that the next one need not work it out again.
//
// Where every allocation is recorded, most of a stack is that of the walk before. From one frame's
// program counter, stack pointer and frame pointer its row tells where the return address and the
// saved frame pointer lie, so these two words decide what the next frame is. If the words that a
// remembered chain of frames was made from still hold what they held, then by induction the chain
// is the stack's from any of its frames outward, and comparing two words takes a tenth of what
// finding a row takes. So: the outermost frames whose words are unchanged are looked for first; then
// the walk goes by rows until it meets one of these.
//
// Kept are frames of plain rows (row_walk.cc) that follow each other upward on one stack, with both
// words between them; what lies further in than a frame that is otherwise is not. All words that
// are compared lie between the stack pointer where the walk starts and the upper bound that is given.
//
// The hash of frames 0..d-1 is a polynomial, sum of Mix(pc[i]) * kBase^i modulo 2^64, so that the
// hash of a chain is the difference of two sums that are kept with its ends.
//
// A memo belongs to one thread, which must not enter it a second time from a signal handler. While
// it is in use it is empty, so a thread that jumps out of a walk finds an empty one. 0 is empty.
#pragma once

#include <array>
#include <cstdint>

namespace heapflare::recorder {

class FrameHash {
 public:
  static constexpr uint32_t kMost = 512;
  static uint64_t Mix(uint64_t pc) {
    const uint64_t product = pc * 0x9e3779b97f4a7c15;
    return product ^ product >> 32;
  }
  // kBase^exponent, up to kMost.
  static uint64_t Power(uint32_t exponent) { return kPowers[exponent]; }

  void Add(uint64_t mixed) {
    sum_ += mixed * power_;
    power_ *= kBase;
  }
  // `sum`: of `count` frames by themselves.
  void AddChain(uint64_t sum, uint32_t count) {
    sum_ += sum * power_;
    power_ *= Power(count);
  }
  uint64_t sum() const { return sum_; }

  static constexpr uint64_t kBase = 0xd1342543de82ef95;

 private:
  static const std::array<uint64_t, kMost + 1> kPowers;

  uint64_t sum_ = 0;
  uint64_t power_ = 1;
};
// 1 / kBase modulo 2^64, by Newton's iteration: each step doubles the bits that are right.
inline constexpr uint64_t kFrameHashInverse = [] {
  uint64_t inverse = FrameHash::kBase;
  for (int i = 0; i < 6; ++i) inverse *= 2 - FrameHash::kBase * inverse;
  return inverse;
}();
static_assert(kFrameHashInverse * FrameHash::kBase == 1);

class WalkMemo {
 public:
  // The thread that it belongs to, by its thread pointer; 0: none.
  uint64_t owner;

 private:
  friend class Recollection;

  static constexpr uint32_t kFrames = 128;  // a power of two
  static constexpr uint32_t kNewFrames = 64;
  struct Frame {
    uint64_t pc;  // a return address, the word below `sp`
    uint64_t sp;
    uint64_t fp;
    // Where `fp` was loaded from; where it was not, any place that holds it.
    const uint64_t* fp_word;
  };

  Frame& at(uint32_t position) { return frames_[position % kFrames]; }
  uint64_t& sum(uint32_t position) { return sums_[position % kFrames]; }

  // Frames by position, which grows outward: those from `first` to before `last`, modulo 2^32.
  uint32_t first_;
  uint32_t last_;
  uint32_t generation_;
  bool complete_;  // the outermost frame has no caller
  Frame frames_[kFrames];
  // sum(p) = Mix(pc(p)) + kBase * sum(p + 1); `last_sum_` is sum(last_).
  uint64_t sums_[kFrames];
  uint64_t last_sum_;
  Frame new_frames_[kNewFrames];
};

// One walk's use of a memo.
class Recollection {
 public:
  static constexpr bool kRemembers = true;

  // The stack is walked from `sp` up, and may be read below `high`.
  Recollection(WalkMemo* memo, uint32_t generation, uint64_t sp, uint64_t high)
      : memo_(*memo), first_(memo->first_), last_(memo->last_), generation_(generation) {
    // Until this walk is over.
    memo_.last_ = first_;
    // A signal handler sees this order; other threads do not look.
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (first_ == last_ || memo_.generation_ != generation || memo_.at(last_ - 1).sp > high) {
      next_ = last_ = first_;
      return;
    }
    next_ = last_ - 1;
    while (next_ != first_ && memo_.at(next_ - 1).sp >= sp && Holds(memo_.at(next_))) --next_;
  }
  Recollection(const Recollection&) = delete;
  Recollection& operator=(const Recollection&) = delete;

  // Whether the walk, at a return address, has met a remembered frame. Then all further out are the
  // stack's, and are to be taken. `fp_word`: where `fp` was loaded from, nullptr if it was not.
  bool Meets(uint64_t pc, uint64_t sp, uint64_t fp, const uint64_t* fp_word) {
    while (next_ != last_ && memo_.at(next_).sp < sp) ++next_;
    if (next_ == last_) return false;
    WalkMemo::Frame& frame = memo_.at(next_);
    if (frame.sp != sp || frame.pc != pc || frame.fp != fp) return false;
    frame.fp_word = fp_word != nullptr ? fp_word : &frame.fp;
    met_ = true;
    met_at_ = next_;
    return true;
  }

  // Adds up to `most` frames, from the one that was met, to `pcs` and the hash; returns how many.
  uint32_t Take(uint64_t* pcs, uint32_t most, FrameHash* hash) {
    const uint32_t there = last_ - met_at_;
    const uint32_t count = there < most ? there : most;
    for (uint32_t i = 0; i < count; ++i) pcs[i] = memo_.at(met_at_ + i).pc;
    const uint64_t beyond = count == there ? memo_.last_sum_ : memo_.sum(met_at_ + count);
    hash->AddChain(memo_.sum(met_at_) - beyond * FrameHash::Power(count), count);
    next_ = last_;
    return count;
  }
  // After Take: whether there are no frames beyond `count` of them; and if only that is not known
  // (all were taken), the outermost one, from which the walk goes on.
  bool EndsAfter(uint32_t count) const { return count == last_ - met_at_ && memo_.complete_; }
  bool GoesOnAfter(uint32_t count) const { return count == last_ - met_at_ && !memo_.complete_; }
  void Outermost(uint64_t* pc, uint64_t* sp, uint64_t* fp) const {
    const WalkMemo::Frame& frame = memo_.at(last_ - 1);
    *pc = frame.pc;
    *sp = frame.sp;
    *fp = frame.fp;
  }

  // A frame that was walked by its row.
  void Add(uint64_t pc, uint64_t sp, uint64_t fp, const uint64_t* fp_word) {
    if (!met_) {
      if (new_count_ < WalkMemo::kNewFrames) memo_.new_frames_[new_count_] = {pc, sp, fp, fp_word};
      ++new_count_;
    } else if (!broken_ && last_ - met_at_ < WalkMemo::kFrames) {
      WalkMemo::Frame& frame = memo_.at(last_);
      frame = {pc, sp, fp, fp_word != nullptr ? fp_word : &frame.fp};
      memo_.sum(last_) = memo_.last_sum_;
      memo_.last_sum_ = (memo_.last_sum_ - FrameHash::Mix(pc)) * kFrameHashInverse;
      ++last_;
      next_ = last_;
    } else {
      broken_ = true;
    }
  }
  // The next frame does not follow from the one before by what is compared.
  void Break() {
    if (met_) {
      broken_ = true;
    } else {
      new_count_ = 0;
    }
  }

  // The walk is over. `at_end`: since the last frame has no caller.
  void Keep(bool at_end);

 private:
  // What lies there now may be anything, also what a sanitizer keeps apart.
  __attribute__((no_sanitize("address"))) static bool Holds(const WalkMemo::Frame& frame) {
    return *reinterpret_cast<const uint64_t*>(frame.sp - sizeof(uint64_t)) == frame.pc &&
           *frame.fp_word == frame.fp;
  }

  WalkMemo& memo_;
  uint32_t first_;
  uint32_t last_;
  uint32_t next_;  // the innermost remembered frame that the walk can still meet
  uint32_t met_at_ = 0;
  uint32_t generation_;
  uint32_t new_count_ = 0;
  bool met_ = false;
  bool broken_ = false;
};

}  // namespace heapflare::recorder
