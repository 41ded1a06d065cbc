#include "lib/base/elementary.h"

#include <bit>
#include <cstdint>

namespace heapflare::base {
namespace {

constexpr double kLn2 = 0.693147180559945309417232121458;
constexpr int kMantissaBits = 52;
constexpr int kBias = 1023;

}  // namespace

double Log(double x) {
  const auto bits = std::bit_cast<uint64_t>(x);
  int exponent = static_cast<int>(bits >> kMantissaBits) - kBias;
  constexpr uint64_t kMantissa = (uint64_t{1} << kMantissaBits) - 1;
  double m = std::bit_cast<double>((bits & kMantissa) | uint64_t{kBias} << kMantissaBits);
  // m in [sqrt(1/2), sqrt(2)), where log m = 2 artanh(z) with |z| < 0.172 converges fast.
  if (m > 1.4142135623730951) {
    m /= 2;
    ++exponent;
  }
  const double z = (m - 1) / (m + 1);
  const double z2 = z * z;
  double power = z;
  double sum = 0;
  for (int k = 1; k <= 21; k += 2) {
    sum += power / k;
    power *= z2;
  }
  return 2 * sum + exponent * kLn2;
}

double OneMinusExp(double x) {
  if (x > 40) return 1;
  // Halved until the series converges fast, then 1 - e^-2y = (1 - e^-y)(2 - (1 - e^-y)), which
  // cancels nothing.
  int halvings = 0;
  while (x > 0.25) {
    x /= 2;
    ++halvings;
  }
  double term = x;
  double sum = 0;
  for (int k = 2; k <= 13; ++k) {
    sum += term;
    term *= -x / k;
  }
  for (; halvings > 0; --halvings) sum *= 2 - sum;
  return sum;
}

double SquareRoot(double x) {
  constexpr double kSmallestNormal = 0x1p-1022;
  constexpr double kLargest = 0x1.fffffffffffffp1023;
  if (!(x >= kSmallestNormal && x <= kLargest)) return 0;
  // Half the exponent is within 7 % of the root; each of Newton's steps squares the error.
  double root = std::bit_cast<double>((std::bit_cast<uint64_t>(x) >> 1) +
                                      (uint64_t{kBias} << (kMantissaBits - 1)));
  for (int i = 0; i < 4; ++i) root = (root + x / root) / 2;
  return root;
}

}  // namespace heapflare::base
