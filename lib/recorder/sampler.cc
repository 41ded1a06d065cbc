#include "lib/recorder/sampler.h"

#include <algorithm>

#include "lib/base/elementary.h"
#include "lib/base/syscall.h"
#include "lib/box/format.h"

namespace heapflare::recorder {
namespace {

// SplitMix64 (Steele, Lea & Flood 2014): any seed is good, also neighbouring ones.
uint64_t SplitMix(uint64_t* state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace

uint64_t SampleWeight(uint64_t bytes, uint64_t interval) {
  constexpr double kOne = uint64_t{1} << box::kObjectShift;
  if (interval <= 1) return static_cast<uint64_t>(kOne);
  const double p =
      base::OneMinusExp((static_cast<double>(bytes) + 1) / static_cast<double>(interval));
  // To nearest; lround is not ours to call.
  const double weight = kOne / p;
  const auto whole = static_cast<uint64_t>(weight);
  return whole + (weight - static_cast<double>(whole) >= 0.5 ? 1 : 0);
}

// Everything is computed from one reading of the members and stored at the end: whatever a signal
// handler does to them in between, no difference of two can go below zero and end all sampling.
uint64_t Sampler::Draw(size_t bytes, uint64_t interval) {
  const uint64_t drawn_with = interval_;
  // Exact mode, as it goes on: there is nothing to draw.
  if (interval == 1 && drawn_with == 1 && (left_ | beyond_) == 0) return SampleWeight(bytes, 1);
  uint64_t weight = 0;
  if (random_ != 0) {
    const uint64_t left = __atomic_load_n(&left_, __ATOMIC_RELAXED);
    const uint64_t beyond = __atomic_load_n(&beyond_, __ATOMIC_RELAXED);
    // A handler came between and drew anew.
    if (left > bytes) {
      left_ = left - (bytes + 1);
      return 0;
    }
    // How far this allocation reaches beyond the slice.
    const uint64_t past_slice = bytes + 1 - left;
    if (past_slice <= beyond) {
      StartSlice(beyond - past_slice);
      // Off, or still on the way: the next point stays where it is, unless the setting changed.
      if (interval == drawn_with) return 0;
    } else if (drawn_with != 0) {
      weight = SampleWeight(bytes, drawn_with);
    }
  }
  const bool first = random_ == 0;
  interval_ = interval;
  StartSlice(DrawDistance(interval));
  // A thread's first allocation is no different from its later ones.
  return first && Take(bytes) ? Draw(bytes, interval) : weight;
}

void Sampler::StartSlice(uint64_t distance) {
  const uint64_t left = std::min(distance, kSlice);
  beyond_ = distance - left;
  left_ = left;
}

uint64_t Sampler::DrawDistance(uint64_t interval) {
  const uint64_t random = NextRandom();
  if (interval == 0) return kSlice;
  if (interval == 1) return 0;
  // Uniform in (0, 1] with 53 bits.
  const double u = static_cast<double>((random >> 11) + 1) * 0x1p-53;
  const double distance = -base::Log(u) * static_cast<double>(interval);
  return static_cast<uint64_t>(distance);
}

uint64_t Sampler::NextRandom() {
  if (random_ == 0) {
    // The clock and the place tell threads and processes apart. (The address alone does not: stacks
    // are used again.)
    random_ = static_cast<uint64_t>(base::MonotonicNanoseconds()) ^
              reinterpret_cast<uintptr_t>(this) << 20 ^
              static_cast<uint64_t>(base::ThreadId()) << 44;
    if (random_ == 0) random_ = 1;
  }
  return SplitMix(&random_);
}

}  // namespace heapflare::recorder
