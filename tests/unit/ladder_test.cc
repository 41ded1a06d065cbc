#include "lib/recorder/ladder.h"

#include <gtest/gtest.h>

namespace heapflare::recorder {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

Ladder Default() {
  const Rung rungs[] = {{0, 8000}, {0, 9000}, {0, 9500}};
  Ladder ladder;
  ladder.Configure(rungs, 3);
  return ladder;
}

TEST(Ladder, FiresEachRungOnceOnTheWayUp) {
  Ladder ladder = Default();
  EXPECT_EQ(ladder.Step(799, 1000, 0), -1);
  EXPECT_EQ(ladder.Step(800, 1000, 1), 0);
  EXPECT_EQ(ladder.Step(850, 1000, 2), -1);
  EXPECT_EQ(ladder.Step(900, 1000, 3), 1);
  EXPECT_EQ(ladder.Step(950, 1000, 4), 2);
  EXPECT_EQ(ladder.Step(999, 1000, 5), -1);
}

TEST(Ladder, AHigherRungBreaksTheCooldownAndALowerOneWaits) {
  Ladder ladder = Default();
  EXPECT_EQ(ladder.Step(900, 1000, 0), 1);
  EXPECT_EQ(ladder.Step(700, 1000, kSecond), -1);
  EXPECT_EQ(ladder.Step(820, 1000, 2 * kSecond), -1) << "in the cooldown";
  EXPECT_EQ(ladder.Step(950, 1000, 3 * kSecond), 2) << "higher than the last";
  EXPECT_EQ(ladder.Step(700, 1000, 4 * kSecond), -1);
  EXPECT_EQ(ladder.Step(820, 1000, 5 * kSecond + Ladder::kCooldown), 0);
}

TEST(Ladder, OnlyTheHighestOfSeveralFires) {
  Ladder ladder = Default();
  EXPECT_EQ(ladder.Step(990, 1000, 0), 2);
  EXPECT_EQ(ladder.Step(991, 1000, 2 * Ladder::kCooldown), -1);
}

TEST(Ladder, IsArmedAgainOnlyClearlyBelow) {
  Ladder ladder = Default();
  EXPECT_EQ(ladder.Step(801, 1000, 0), 0);
  const int64_t later = 2 * Ladder::kCooldown;
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(ladder.Step(799 + static_cast<uint64_t>(i % 2) * 2, 1000, later + i), -1);
  }
  EXPECT_EQ(ladder.Step(759, 1000, later + 20), -1);
  EXPECT_EQ(ladder.Step(801, 1000, later + 21), 0);
}

TEST(Ladder, PercentagesFollowTheLimitAndSizesDoNot) {
  const Rung rungs[] = {{0, 5000}, {700, 0}};
  Ladder ladder;
  ladder.Configure(rungs, 2);
  EXPECT_EQ(ladder.Threshold(0, 1000), 500u);
  EXPECT_EQ(ladder.Threshold(0, 2000), 1000u);
  EXPECT_EQ(ladder.Threshold(1, 2000), 700u);
  EXPECT_EQ(ladder.NextAbove(0, 1000), 500u);
  EXPECT_EQ(ladder.NextAbove(500, 1000), 700u);
  EXPECT_EQ(ladder.NextAbove(700, 1000), box::kUnknown);
  // The limit is halved while the use stays.
  EXPECT_EQ(ladder.Step(400, 1000, 0), -1);
  EXPECT_EQ(ladder.Step(400, 500, 1), 0);
}

TEST(Ladder, WithoutALimitOnlySizesCount) {
  const Rung rungs[] = {{0, 5000}, {700, 0}};
  Ladder ladder;
  ladder.Configure(rungs, 2);
  EXPECT_EQ(ladder.Step(1'000'000, box::kUnknown, 0), 1);
}

}  // namespace
}  // namespace heapflare::recorder
