// Statistical tests here use six standard errors: a correct sampler fails one of them with a
// probability below 2e-9 each, 1e-7 for the file.
#include "lib/recorder/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "lib/box/format.h"

namespace heapflare::recorder {
namespace {

constexpr double kSigmas = 6;
constexpr double kOne = 1 << box::kObjectShift;

// What the slow path of a hook does with the sampler.
uint64_t Allocate(Sampler& sampler, size_t bytes, uint64_t interval) {
  return sampler.Take(bytes) ? sampler.Draw(bytes, interval) : 0;
}

TEST(Sampler, RecordsEveryAllocationAtIntervalOne) {
  Sampler sampler;
  for (const size_t bytes : {0ul, 1ul, 100ul, 1ul << 30, 1ul << 40}) {
    EXPECT_EQ(Allocate(sampler, bytes, 1), kOne) << bytes;
  }
}

TEST(Sampler, RecordsNothingWhenOff) {
  Sampler sampler;
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(Allocate(sampler, 1 << 20, 0), 0u);
}

struct Case {
  size_t bytes;
  uint64_t interval;
  int count;
};

class SamplerStatistics : public testing::TestWithParam<Case> {};

TEST_P(SamplerStatistics, TakesEachAllocationWithItsProbability) {
  const auto [bytes, interval, count] = GetParam();
  const double p = -std::expm1(-(static_cast<double>(bytes) + 1) / static_cast<double>(interval));
  Sampler sampler;
  int taken = 0;
  for (int i = 0; i < count; ++i) taken += Allocate(sampler, bytes, interval) != 0 ? 1 : 0;
  EXPECT_NEAR(taken, count * p, kSigmas * std::sqrt(count * p * (1 - p)) + 1e-9);
}

TEST_P(SamplerStatistics, EstimatesObjectsWithoutBias) {
  const auto [bytes, interval, count] = GetParam();
  const double p = -std::expm1(-(static_cast<double>(bytes) + 1) / static_cast<double>(interval));
  Sampler sampler;
  double estimate = 0;
  for (int i = 0; i < count; ++i) {
    estimate += static_cast<double>(Allocate(sampler, bytes, interval)) / kOne;
  }
  EXPECT_NEAR(estimate, count, kSigmas * std::sqrt(count * (1 - p) / p) + count * 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Sizes, SamplerStatistics,
                         testing::Values(Case{0, 512, 400'000}, Case{16, 512 << 10, 4'000'000},
                                         Case{64, 4096, 1'000'000}, Case{1000, 64 << 10, 500'000},
                                         Case{64 << 10, 64 << 10, 100'000},
                                         Case{1 << 20, 512 << 10, 50'000},
                                         Case{20 << 20, 100 << 20, 50'000},
                                         Case{300 << 20, 512 << 10, 1000}));

TEST(Sampler, StaysUnbiasedWhenTheIntervalChangesOnTheWay) {
  constexpr uint64_t kIntervals[] = {4096, 100'000, 0, 1, 512, 30'000};
  Sampler sampler;
  double estimate = 0;
  double variance = 0;
  int counted = 0;
  for (int round = 0; round < 600; ++round) {
    const uint64_t interval = kIntervals[round % 6];
    // A thread takes the new setting at its next sample: only what is drawn with a known interval
    // is counted.
    while (Allocate(sampler, 1 << 20, interval) == 0 && interval != 0) {
    }
    for (int i = 0; i < 1000 && interval != 0; ++i) {
      const size_t bytes = static_cast<size_t>(i % 700);
      estimate += static_cast<double>(Allocate(sampler, bytes, interval)) / kOne;
      const double p =
          interval == 1
              ? 1
              : -std::expm1(-(static_cast<double>(bytes) + 1) / static_cast<double>(interval));
      variance += (1 - p) / p;
      ++counted;
    }
    if (interval == 0) sampler.Reset();
  }
  EXPECT_NEAR(estimate, counted, kSigmas * std::sqrt(variance));
}

TEST(Sampler, NeverLetsALargeRequestPassUnseen) {
  Sampler sampler;
  Allocate(sampler, 1, uint64_t{1} << 40);
  for (int i = 0; i < 100; ++i) {
    EXPECT_TRUE(sampler.Take(8 << 20)) << i;
    sampler.Draw(8 << 20, uint64_t{1} << 40);
  }
}

TEST(Sampler, DiffersBetweenThreadsThatUseTheSameMemory) {
  std::vector<int> first;
  alignas(Sampler) static unsigned char memory[sizeof(Sampler)];
  for (int thread = 0; thread < 20; ++thread) {
    auto* sampler = new (memory) Sampler;
    int until = 0;
    while (Allocate(*sampler, 10, 100'000) == 0) ++until;
    first.push_back(until);
  }
  std::sort(first.begin(), first.end());
  // Two equal ones among 20 draws of thousands may happen; all equal may not.
  EXPECT_NE(first.front(), first.back());
}

TEST(SampleWeight, IsTheInverseOfTheProbability) {
  EXPECT_EQ(SampleWeight(0, 1), kOne);
  EXPECT_EQ(SampleWeight(1 << 30, 4096), kOne);
  EXPECT_NEAR(static_cast<double>(SampleWeight(15, 512 << 10)) / kOne, 32768.5, 1);
}

}  // namespace
}  // namespace heapflare::recorder
