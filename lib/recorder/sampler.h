// Decides which allocations are recorded.
//
// Lay a thread's allocated bytes end to end: sample points fall on that line as a Poisson process
// with mean spacing T, the interval. An allocation of n bytes takes n + 1 of the line (so that
// empty ones can be met too) and is recorded if at least one point falls into it, which has
// probability p(n) = 1 - exp(-(n + 1) / T). A recorded allocation stands for 1/p(n) objects of n
// bytes: weighted so, every sum over the samples is unbiased, whatever the mix of sizes and however
// T changed on the way (Horvitz & Thompson 1952). T = 1 is exact mode: every allocation is recorded
// and p is 1 by definition.
//
// Nothing is remembered past a sample: the process has no memory, so the distance to the next point
// is drawn anew from the end of a recorded allocation. It is drawn with the T of that moment, which
// the weight then uses.
//
// One per thread, in initial-exec TLS, valid when all zero. Allocates nothing, locks nothing, calls
// nothing. A signal handler that allocates may interrupt it anywhere, and need not come back: that
// miscounts a few bytes, and in exact mode nothing.
#pragma once

#include <cstddef>
#include <cstdint>

namespace heapflare::recorder {

class Sampler {
 public:
  // True if an allocation of `bytes` must go through Draw. The fast path: one subtraction, one
  // branch.
  // What is not to be had is not taken: between here and Draw the countdown is as before, should a
  // signal handler allocate then, or jump away.
  bool Take(size_t bytes) {
    uint64_t left = 0;
    if (__builtin_expect(__builtin_usubl_overflow(left_, bytes + 1, &left), 0)) return true;
    left_ = left;
    return false;
  }

  // After Take said true: the weight of this allocation in objects (1/65536 each), 0 if it is not a
  // sample after all (the countdown runs in slices, so that large requests always come by).
  // `interval`: T from the next draw on, 0 = off.
  uint64_t Draw(size_t bytes, uint64_t interval);

  // Starts over with another sequence of random numbers: in a forked child. (Which may come back
  // into the middle of Draw, so `interval_` stays.)
  void Reset() { left_ = beyond_ = random_ = 0; }

 private:
  // An allocation of at least this size always reaches Draw.
  static constexpr uint64_t kSlice = 8 << 20;

  uint64_t NextRandom();
  uint64_t DrawDistance(uint64_t interval);
  // `distance`: bytes to the next sample point.
  void StartSlice(uint64_t distance);

  uint64_t left_ = 0;      // bytes to the end of the slice
  uint64_t beyond_ = 0;    // bytes from the end of the slice to the next sample point
  uint64_t interval_ = 0;  // T with which the distance was drawn
  uint64_t random_ = 0;    // state of the generator; 0: not seeded
};

// 1/p(n) in 1/65536, rounded to nearest; 65536 for interval 1.
uint64_t SampleWeight(uint64_t bytes, uint64_t interval);

}  // namespace heapflare::recorder
