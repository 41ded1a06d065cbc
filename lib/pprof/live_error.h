// How far the estimate of the live heap can be off: its standard error.
//
// A live sample of s bytes that was taken with probability p = 1 - exp(-(s + 1) / T) stands for
// u = s / p bytes. The total is the sum of u, and the unbiased estimate of its variance the sum of
// u (u - s) = s^2 (1 - p) / p^2 (Horvitz & Thompson 1952). Visiting the live samples would make the
// time of a dump depend on their number, so the sums are taken from the stacks' counters, where two
// things are not known:
//   - the sizes of a stack's blocks: all are taken to have the stack's mean. Exact if they are of
//     one size, or all well below T (there the variance is T times the bytes). A stack that mixes
//     sizes below and far above T comes out too high or, if its mean is above 1.6 T, too low.
//   - the T of each sample, if T changed (set, or doubled because the box was filling up). It lies
//     between the lowest and the highest T that the box remembers, a and b. With V(T) and n(T), the
//     variance and the number of live samples if all had been taken with T, and n the number that
//     there are, the variance is taken as V(a) + (V(b) - V(a)) (n(a) - n) / (n(a) - n(b)): exact if
//     no interval but a and b was in force, and too high otherwise, since u^2 lies below its chord
//     between u(a) and u(b). (Five doublings: the standard error is 1.8 times what it should be.)
// What the box lost is not in it.
//
// Usage: Add every stack once, then ask.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lib/base/text.h"
#include "lib/box/reader.h"

namespace heapflare::pprof {

class LiveError {
 public:
  explicit LiveError(const box::Reader& box);

  void Add(const box::StackView& stack);

  // One standard error of the live bytes. 0: every live block was recorded, or none.
  uint64_t Bytes() const;
  // Of a damaged box the largest number that fits, at most.
  uint64_t live_bytes() const { return static_cast<uint64_t>(std::min(live_bytes_, 0x1p63)); }

  // Bytes() in relation to live_bytes(), as people read it: "1.6 %".
  void AddPercent(base::TextWriter* text) const;

 private:
  // If every live block had been met with one interval.
  struct AtInterval {
    double interval;
    double variance;
    double samples;
    void Add(double objects, double bytes);
  };

  AtInterval lowest_ = {};
  AtInterval highest_ = {};
  double samples_ = 0;
  double live_bytes_ = 0;
};

}  // namespace heapflare::pprof
