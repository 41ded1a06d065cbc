// The history of the stacks' live bytes: how a value is packed, and which moments of the past are
// kept.
//
// A value is 16 bits, 6 of exponent and 10 of mantissa: 0, or 2^e (1 + m / 1024) bytes, within
// 0.05 % of what was put in. The sampling error is larger than that by far: 400,000 samples of one
// stack have one of 0.16 %.
//
// A process lives for seconds or for weeks, and there are 16 columns. So they spread out with age:
// when all are taken, a new look takes the place of the one that is missed least, where the gap
// that it leaves between its neighbours is the smallest in relation to its age. After N looks
// evenly spaced the ages are in geometric progression, of a ratio about N^(1/14). The first look is
// kept for ever: with it, the start.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lib/box/format.h"

namespace heapflare::box {

inline constexpr int kPackedMantissa = 10;

constexpr uint16_t PackBytes(uint64_t bytes) {
  if (bytes == 0) return 0;
  bytes = std::min(bytes, uint64_t{1} << 62);
  const int exponent = 63 - __builtin_clzll(bytes);
  const int shift = exponent - kPackedMantissa;
  // With the leading one, rounded to nearest: rounding up to the next power carries as it should.
  const uint64_t mantissa =
      shift > 0 ? (bytes + (uint64_t{1} << (shift - 1))) >> shift : bytes << -shift;
  return static_cast<uint16_t>((static_cast<uint64_t>(exponent) << kPackedMantissa) + mantissa -
                               (uint64_t{1} << kPackedMantissa));
}

constexpr uint64_t UnpackBytes(uint16_t packed) {
  if (packed == 0) return 0;
  constexpr uint64_t kOne = uint64_t{1} << kPackedMantissa;
  const int shift = (packed >> kPackedMantissa) - kPackedMantissa;
  const uint64_t mantissa = kOne | (packed & (kOne - 1));
  return shift >= 0 ? mantissa << shift : mantissa >> -shift;
}

// The column that a look at `now` goes into; `times` as in Header.growth_mono.
inline uint32_t ChooseGrowthColumn(const uint64_t (&times)[kGrowthColumns], uint64_t now) {
  uint32_t order[kGrowthColumns];
  for (uint32_t i = 0; i < kGrowthColumns; ++i) {
    if (times[i] == 0) return i;
    uint32_t at = i;
    for (; at > 0 && times[order[at - 1]] > times[i]; --at) order[at] = order[at - 1];
    order[at] = i;
  }
  uint32_t best = order[kGrowthColumns - 1];
  double least = 0;
  for (uint32_t i = 1; i < kGrowthColumns; ++i) {
    const uint64_t after = i + 1 < kGrowthColumns ? times[order[i + 1]] : now;
    const auto gap = static_cast<double>(after - times[order[i - 1]]);
    const auto age = static_cast<double>(now - times[order[i]]);
    const double relative = gap / (age + 1);
    if (i == 1 || relative < least) {
      least = relative;
      best = order[i];
    }
  }
  return best;
}

}  // namespace heapflare::box
