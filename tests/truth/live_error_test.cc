// The standard error that a profile states, against the sum over the live samples that it stands
// for. Nothing is random here.
#include "lib/pprof/live_error.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lib/recorder/sampler.h"
#include "tests/support/box_builder.h"

namespace heapflare::pprof {
namespace {

class LiveErrorTest : public testing::Test {
 protected:
  // As many live samples, and what they add to the variance, u (u - s).
  void Sample(uint32_t stack, uint64_t size, uint64_t interval, int count) {
    const uint64_t weight = recorder::SampleWeight(size, interval);
    const double stands_for = static_cast<double>(size) * static_cast<double>(weight) / 65536;
    for (int i = 0; i < count; ++i) {
      box_.AllocateWeighted(stack, next_address_ += 4096, size, weight);
      variance_ += stands_for * (stands_for - static_cast<double>(size));
    }
  }

  void SetInterval(uint64_t before, uint64_t after, box::EventKind kind) {
    box_.AddEvent(kind, "", before, after);
    box_.header().interval = after;
  }

  LiveError Read() {
    box_.Publish();
    base::Text<256> problem;
    box::Reader reader;
    EXPECT_TRUE(reader.Open(box_.mapping().base(), box_.mapping().bytes(), &problem))
        << problem.c_str();
    LiveError error(reader);
    box::StackView stack = {};
    for (uint64_t i = 0; i < reader.stack_count(); ++i) {
      if (reader.stack(i, &stack)) error.Add(stack);
    }
    return error;
  }

  double Stated() { return static_cast<double>(Read().Bytes()); }
  double Truth() const { return std::sqrt(variance_); }

  static constexpr uint64_t kInterval = 64 << 10;

  test::BoxBuilder box_{"", 4 << 20};
  uint32_t stack_ = box_.AddStack({0x401010, 0x401050});
  uint64_t next_address_ = 0x10000000;
  double variance_ = 0;
};

TEST_F(LiveErrorTest, IsThatOfTheSamplesWhereAStackHasOneSize) {
  box_.header().configured_interval = box_.header().interval = kInterval;
  uint64_t frame = 0x402000;
  for (const uint64_t size : {1, 100, 10'000, 60'000, 200'000, 1'000'000}) {
    Sample(box_.AddStack({frame += 16}), size, kInterval, 50);
  }
  EXPECT_NEAR(Stated() / Truth(), 1, 1e-4);
}

TEST_F(LiveErrorTest, IsThatOfTheSamplesWhereAStackMixesSizesBelowTheInterval) {
  box_.header().configured_interval = box_.header().interval = kInterval;
  for (const uint64_t size : {16, 100, 1000, 3000}) Sample(stack_, size, kInterval, 50);
  EXPECT_NEAR(Stated() / Truth(), 1, 0.01);
}

TEST_F(LiveErrorTest, IsNothingWhereEveryAllocationIsRecorded) {
  box_.header().configured_interval = box_.header().interval = 1;
  Sample(stack_, 1000, 1, 100);
  EXPECT_EQ(Read().Bytes(), 0u);
  EXPECT_EQ(Read().live_bytes(), 100'000u);
}

TEST_F(LiveErrorTest, IsNothingInAnEmptyBox) {
  base::Text<32> percent;
  Read().AddPercent(&percent);
  EXPECT_EQ(Read().Bytes(), 0u);
  EXPECT_STREQ(percent.c_str(), "0 %");
}

TEST_F(LiveErrorTest, IsThatOfTheSamplesAfterOneChangeOfTheInterval) {
  for (const auto& [before, after] :
       {std::pair<uint64_t, uint64_t>{512 << 10, 16 << 10}, {16 << 10, 512 << 10}, {1, 64 << 10}}) {
    box_.header().configured_interval = before;
    SetInterval(before, after, box::EventKind::kIntervalChanged);
    Sample(stack_, 200, before, 70);
    Sample(stack_, 200, after, 30);
    EXPECT_NEAR(Stated() / Truth(), 1, 0.01) << before << " to " << after;
    // The next pair starts afresh.
    while (next_address_ > 0x10000000) {
      box_.Free(next_address_);
      next_address_ -= 4096;
    }
    box_.header().regions[box::kEvents].used = 0;
    variance_ = 0;
  }
}

TEST_F(LiveErrorTest, KnowsAnIntervalThatOnlyAnEventRemembers) {
  box_.header().configured_interval = kInterval;
  SetInterval(kInterval / 8, kInterval, box::EventKind::kIntervalChanged);
  Sample(stack_, 200, kInterval / 8, 70);
  Sample(stack_, 200, kInterval, 30);
  EXPECT_NEAR(Stated() / Truth(), 1, 0.01);
}

// The box does not say with which interval a sample was taken: the worst is assumed.
TEST_F(LiveErrorTest, IsTooHighRatherThanTooLowAfterManyThinnings) {
  box_.header().configured_interval = 1024;
  uint64_t interval = 1024;
  int samples = 512;
  for (int i = 0; i < 5; ++i) {
    Sample(stack_, 50, interval, samples /= 2);
    SetInterval(interval, interval * 2, box::EventKind::kThinned);
    interval *= 2;
  }
  EXPECT_GE(Stated(), Truth());
  EXPECT_LE(Stated(), 2 * Truth());
}

TEST_F(LiveErrorTest, IsReadableInPercent) {
  box_.header().configured_interval = box_.header().interval = kInterval;
  const auto percent = [this] {
    base::Text<32> text;
    Read().AddPercent(&text);
    return std::string(text.view());
  };
  Sample(stack_, 1, kInterval, 16);
  EXPECT_EQ(percent(), "25 %");
  Sample(stack_, 1, kInterval, 384);
  EXPECT_EQ(percent(), "5.0 %");
  Sample(box_.AddStack({0x403000}), 10 << 20, kInterval, 400);
  EXPECT_EQ(percent(), "<0.1 %");
}

TEST_F(LiveErrorTest, BearsNonsenseInTheBox) {
  box_.header().configured_interval = ~uint64_t{0};
  box_.header().interval = 2;
  Sample(stack_, ~uint64_t{0} >> 20, 1, 1);
  box_.header().tallies[0].samples_taken = ~uint64_t{0};
  base::Text<32> percent;
  const LiveError error = Read();
  EXPECT_LE(error.Bytes(), uint64_t{1} << 63);
  error.AddPercent(&percent);
  EXPECT_FALSE(percent.truncated());
}

}  // namespace
}  // namespace heapflare::pprof
