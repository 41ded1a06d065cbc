// The sampler by itself, with millions of draws. tests/unit/sampler_test.cc has its cases; here is
// its randomness.
//
// False failures: each test compares with a limit that a correct sampler exceeds with a probability
// of kAlpha; there are 23 comparisons, so the file fails falsely less than once in 4 * 10^7 runs.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <thread>
#include <vector>

#include "lib/box/format.h"
#include "lib/recorder/sampler.h"

namespace heapflare::recorder {
namespace {

constexpr double kAlpha = 1e-9;
// Two-sided limit of a standard normal for kAlpha.
constexpr double kSigmas = 6.109;

// What the slow path of a hook does with the sampler.
uint64_t Allocate(Sampler& sampler, size_t bytes, uint64_t interval) {
  return sampler.Take(bytes) ? sampler.Draw(bytes, interval) : 0;
}

// The probability that `samples` of Exp(1) are as far from that distribution as they are is below
// kAlpha if this is above 1 (Kolmogorov-Smirnov's distance with the bound of Dvoretzky, Kiefer,
// Wolfowitz and Massart, which holds for every number of samples).
double DistanceFromExponential(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  const auto count = static_cast<double>(samples.size());
  double distance = 0;
  for (size_t i = 0; i < samples.size(); ++i) {
    const double cdf = -std::expm1(-samples[i]);
    distance = std::max(
        {distance, cdf - static_cast<double>(i) / count, static_cast<double>(i + 1) / count - cdf});
  }
  return distance / std::sqrt(std::log(2 / kAlpha) / (2 * count));
}

// Of neighbours in a sequence with mean 1 and variance 1; a standard normal if they are
// independent.
double SerialCorrelation(const std::vector<double>& samples) {
  double sum = 0;
  for (size_t i = 1; i < samples.size(); ++i) sum += (samples[i - 1] - 1) * (samples[i] - 1);
  return sum / std::sqrt(static_cast<double>(samples.size() - 1));
}

// Distances between sample points on the line of bytes, in intervals.
std::vector<double> Distances(Sampler& sampler, size_t bytes, uint64_t interval, int allocations) {
  const double step = (static_cast<double>(bytes) + 1) / static_cast<double>(interval);
  std::vector<double> distances;
  uint64_t since = 0;
  for (int i = 0; i < allocations; ++i) {
    ++since;
    if (Allocate(sampler, bytes, interval) == 0) continue;
    // The point lies within what the allocation takes of the line.
    distances.push_back((static_cast<double>(since) - 0.5) * step);
    since = 0;
  }
  return distances;
}

TEST(SamplerStatistics, DistancesAreExponentialAndIndependent) {
  struct Case {
    size_t bytes;
    uint64_t interval;
  };
  // The last: distances of many of the slices in which the sampler counts.
  constexpr Case kCases[] = {{0, 1000}, {0, 2999}, {511, 2 << 20}, {65535, 100 << 20}};
  Sampler sampler;
  for (const auto& [bytes, interval] : kCases) {
    // What is left of the interval before.
    while (Allocate(sampler, bytes, interval) == 0) {
    }
    const std::vector<double> distances = Distances(sampler, bytes, interval, 30'000'000);
    ASSERT_GT(distances.size(), 3000u);
    EXPECT_LT(DistanceFromExponential(distances), 1) << interval;
    EXPECT_LT(std::abs(SerialCorrelation(distances)), kSigmas) << interval;
  }
}

// Sizes from far below to above the interval in one stream: each is taken with its own probability,
// whatever surrounds it.
TEST(SamplerStatistics, TenMillionDrawsTakeEachSizeWithItsProbability) {
  constexpr uint64_t kInterval = 4096;
  constexpr size_t kSizes[] = {0, 7, 64, 500, 1500, 4095, 9000, 20'000};
  constexpr int kRounds = 10'000'000 / static_cast<int>(std::size(kSizes));
  int taken[std::size(kSizes)] = {};
  double objects[std::size(kSizes)] = {};
  Sampler sampler;
  uint64_t order = 1;
  for (int round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < std::size(kSizes); ++i) {
      order = order * 6364136223846793005 + 1442695040888963407;
      const size_t which = (order >> 61) % std::size(kSizes);
      const uint64_t weight = Allocate(sampler, kSizes[which], kInterval);
      taken[which] += weight != 0 ? 1 : 0;
      objects[which] += static_cast<double>(weight) / (1 << box::kObjectShift);
    }
  }
  // How often each size came is the generator's affair and known exactly: replayed.
  int offered[std::size(kSizes)] = {};
  order = 1;
  for (size_t i = 0; i < std::size(kSizes) * kRounds; ++i) {
    order = order * 6364136223846793005 + 1442695040888963407;
    ++offered[(order >> 61) % std::size(kSizes)];
  }
  double chi_square = 0;
  for (size_t i = 0; i < std::size(kSizes); ++i) {
    const double p = -std::expm1(-(static_cast<double>(kSizes[i]) + 1) / kInterval);
    const double count = offered[i];
    const double z = (taken[i] - count * p) / std::sqrt(count * p * (1 - p));
    chi_square += z * z;
    EXPECT_NEAR(objects[i] / count, 1, kSigmas * std::sqrt((1 - p) / p / count) + 1e-5) << i;
  }
  // 8 degrees of freedom; the bound of Laurent and Massart (2000) on the upper tail.
  const double x = std::log(1 / kAlpha);
  EXPECT_LT(chi_square, 8 + 2 * std::sqrt(8 * x) + 2 * x);
}

// Also the sample in which a change takes effect must be weighed with the interval that it was drawn
// with. Here there is one such sample in a few.
TEST(SamplerStatistics, EstimatesAreUnbiasedAcrossManyChangesOfTheInterval) {
  constexpr uint64_t kIntervals[] = {4096, 64 << 10, 1, 16 << 10};
  Sampler sampler;
  uint64_t in_force = kIntervals[0];
  Allocate(sampler, 0, in_force);
  // By the interval that is set: the errors of a cycle would cancel each other.
  struct Sums {
    double objects = 0;
    double estimate = 0;
    double variance = 0;
  };
  Sums sums[std::size(kIntervals)];
  for (int i = 0; i < 4'000'000; ++i) {
    const size_t which = static_cast<size_t>(i) / 50 % std::size(kIntervals);
    const auto bytes = static_cast<size_t>(i % 1500);
    const uint64_t weight = Allocate(sampler, bytes, kIntervals[which]);
    const double line = static_cast<double>(bytes) + 1;
    sums[which].objects += 1;
    sums[which].estimate += static_cast<double>(weight) / (1 << box::kObjectShift);
    if (in_force > 1) {
      sums[which].variance += 1 / std::expm1(line / static_cast<double>(in_force));
    }
    if (weight != 0) in_force = kIntervals[which];
  }
  for (const auto& [objects, estimate, variance] : sums) {
    EXPECT_LT(std::abs(estimate - objects) / std::sqrt(variance), kSigmas);
  }
}

// A service starts threads by the thousand, on the same stacks, within microseconds.
TEST(SamplerStatistics, FirstDistancesOfFreshThreadsAreExponentialAndIndependent) {
  constexpr uint64_t kInterval = 1 << 20;
  constexpr int kThreads = 4000;
  std::vector<double> first(kThreads);
  for (double& distance : first) {
    std::thread([&distance] {
      static thread_local Sampler sampler;
      uint64_t since = 1;
      while (Allocate(sampler, 255, kInterval) == 0) ++since;
      distance = (static_cast<double>(since) - 0.5) * 256 / kInterval;
    }).join();
  }
  EXPECT_LT(DistanceFromExponential(first), 1);
  EXPECT_LT(std::abs(SerialCorrelation(first)), kSigmas);
}

}  // namespace
}  // namespace heapflare::recorder
