// What is made of a box: suspects of each kind, and the function that is named.
#include <gtest/gtest.h>

#include "lib/leak/blame.h"
#include "lib/leak/findings.h"
#include "tests/support/box_builder.h"

namespace heapflare::leak {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;
constexpr uint64_t kOne = uint64_t{1} << box::kObjectShift;

class FindingsTest : public testing::Test {
 protected:
  FindingsTest() {
    builder_.header().interval = builder_.header().configured_interval = 1;
    builder_.header().reach.passes_needed = 3;
  }

  // One block of 1,000 bytes more for each of `stacks` in each of `seconds`.
  void Grow(const std::vector<uint32_t>& stacks, uint64_t seconds) {
    for (; seconds > 0; --seconds) {
      ++now_;
      for (const uint32_t stack : stacks) {
        builder_.AllocateWeighted(stack, next_ += 4096, 1000, kOne,
                                  static_cast<uint32_t>(now_ * 10 - 5));
      }
      builder_.Look(builder_.header().opened_mono + now_ * kSecond);
      builder_.header().heartbeat_mono = builder_.header().opened_mono + now_ * kSecond;
    }
  }

  // A block that the search found nothing to refer to in `passes` passes.
  void Lose(uint32_t stack, uint32_t passes, bool indirect = false, uint32_t born = 0) {
    builder_.AllocateWeighted(stack, next_ += 4096, 500, kOne, born);
    box::Region& region = builder_.header().regions[box::kSamples];
    auto* const samples = builder_.mapping().Records<box::Sample>(box::kSamples);
    for (uint64_t i = 0; i < region.capacity; ++i) {
      if (samples[i].address != next_) continue;
      samples[i].size_and_marks =
          box::WithPasses(samples[i].size_and_marks, passes) | (indirect ? box::kMarkIndirect : 0);
      return;
    }
  }

  Findings Read(const Options& options = {}) {
    builder_.Publish();
    box::Reader reader;
    base::Text<256> problem;
    EXPECT_TRUE(reader.Open(builder_.mapping().base(), builder_.mapping().bytes(), &problem))
        << problem.c_str();
    return Find(reader, options);
  }

  test::BoxBuilder builder_{""};
  uint64_t now_ = 0;
  uint64_t next_ = 0x10000000;
};

TEST_F(FindingsTest, NameWhatGrowsFirstWhatGrowsFastest) {
  const uint32_t steady = builder_.AddStack({0x401000});
  const uint32_t slow = builder_.AddStack({0x402000});
  const uint32_t fast = builder_.AddStack({0x403000});
  Grow({steady, steady, steady, slow, fast, fast}, 2);
  Grow({slow, fast, fast}, 98);
  builder_.AddPoint(box::kRecent, 1 << 20, 2 << 20);
  const Findings findings = Read();
  EXPECT_EQ(findings.judged, 3);
  ASSERT_EQ(findings.growing.size(), 2);
  const GrowthSuspect& first = findings.growing[0];
  EXPECT_EQ(first.holding.stack, fast);
  EXPECT_EQ(findings.growing[1].holding.stack, slow);
  EXPECT_DOUBLE_EQ(first.holding.bytes, 200'000);
  EXPECT_EQ(first.holding.samples, 200);
  EXPECT_EQ(first.holding.error, 0);  // every allocation was recorded
  EXPECT_NEAR(first.growth.slope, 2000, 20);
  EXPECT_NEAR(first.share, 200.0 / 306, 0.01);
  EXPECT_TRUE(findings.unreachable.empty());
}

TEST_F(FindingsTest, LeaveOutWhatHoldsLess) {
  const uint32_t stack = builder_.AddStack({0x401000});
  Grow({stack}, 100);
  EXPECT_EQ(Read({.min_bytes = 100'000, .since = {}}).growing.size(), 1);
  EXPECT_EQ(Read({.min_bytes = 100'001, .since = {}}).growing.size(), 0);
}

TEST_F(FindingsTest, TellWhenTheLimitIsReached) {
  const uint32_t stack = builder_.AddStack({0x401000});
  Grow({stack}, 100);
  EXPECT_FALSE(Read().growing.at(0).seconds_to_limit);
  builder_.AddPoint(box::kRecent, 0, 1 << 20);
  auto* const points = builder_.mapping().Records<box::TimelinePoint>(box::kRecent);
  points[0].working_set = (1 << 20) - 60'000;
  EXPECT_NEAR(Read().growing.at(0).seconds_to_limit.value(), 60, 1);
}

TEST_F(FindingsTest, CallUnreachableWhatWasSoInEnoughPasses) {
  const uint32_t lost = builder_.AddStack({0x401000});
  const uint32_t perhaps = builder_.AddStack({0x402000});
  builder_.header().reach.passes = 5;
  Lose(lost, 5);
  Lose(lost, 3, true);
  Lose(perhaps, 2);
  const Findings findings = Read();
  ASSERT_EQ(findings.unreachable.size(), 1);
  EXPECT_EQ(findings.unreachable[0].holding.stack, lost);
  EXPECT_DOUBLE_EQ(findings.unreachable[0].holding.bytes, 1000);
  EXPECT_DOUBLE_EQ(findings.unreachable[0].indirect_bytes, 500);
  EXPECT_EQ(findings.unreachable[0].fewest_passes, 3);
  // Not one kind in the other.
  EXPECT_TRUE(findings.growing.empty());
  EXPECT_TRUE(findings.any());
}

TEST_F(FindingsTest, SuppressAStackThatTheSearchWasWrongAbout) {
  const uint32_t stack = builder_.AddStack({0x401000});
  builder_.header().reach.passes = 5;
  Lose(stack, 5);
  builder_.mapping().Records<box::Stack>(box::kStacks)[stack].false_leaks = 2;
  const Findings findings = Read();
  EXPECT_TRUE(findings.unreachable.empty());
  EXPECT_EQ(findings.suppressed, 1);
  EXPECT_EQ(findings.false_leaks, 2);
  EXPECT_FALSE(findings.any());
}

TEST_F(FindingsTest, CountUnreachableBlocksBornSinceATimeOnly) {
  const uint32_t stack = builder_.AddStack({0x401000});
  const uint32_t other = builder_.AddStack({0x402000});
  Grow({other}, 100);
  Lose(stack, 3, false, 100);
  Lose(stack, 3, false, 950);
  EXPECT_EQ(Read({.min_bytes = 0, .since = 10.0}).unreachable.at(0).holding.samples, 1);
  EXPECT_EQ(Read().unreachable.at(0).holding.samples, 2);
  EXPECT_DOUBLE_EQ(Read().unreachable.at(0).oldest, 90);
}

TEST(ShortName, IsWithoutTypesAndArguments) {
  const struct {
    const char* function;
    const char* name;
  } cases[] = {
      {"main", "main"},
      {"shop::Cache::Insert(std::string const&)", "shop::Cache::Insert"},
      {"void shop::Cache<int, std::less<int> >::Insert<char>(char)", "shop::Cache<>::Insert<>"},
      {"std::pair<int, int> shop::Find<int>(int)", "shop::Find<>"},
      {"(anonymous namespace)::Load(int)", "(anonymous namespace)::Load"},
      {"shop::(anonymous namespace)::Load<(shop::Kind)3>()", "shop::(anonymous namespace)::Load<>"},
      {"shop::Less::operator()(int, int) const", "shop::Less::operator()"},
      {"operator new(unsigned long)", "operator new"},
      {"shop::Id::operator char const*() const", "shop::Id::operator char const*"},
      {"shop::operator<<(std::ostream&, int)", "shop::operator<<"},
      {"libshop.so!0x1a2b", "libshop.so!0x1a2b"},
      {"[truncated: deeper than the limit on frames]",
       "[truncated: deeper than the limit on frames]"},
      {"", ""},
      {">>>(", ">>>("},
  };
  for (const auto& one : cases) EXPECT_EQ(ShortName(one.function), one.name);
}

TEST(NamedFrame, IsTheFirstThatDoesNotAllocateForOthers) {
  const auto at = [](std::vector<Frame> frames) { return NamedFrame(frames); };
  EXPECT_EQ(at({{"operator new(unsigned long)", "", 0, "libstdc++.so.6.0.30"},
                {"std::vector<int>::push_back(int const&)", "stl_vector.h", 1287, "checkout"},
                {"shop::Cart::Add(int)", "cart.cc", 12, "checkout"},
                {"main", "main.cc", 3, "checkout"}}),
            2);
  EXPECT_EQ(at({{"strdup", "", 0, "libc.so.6"}, {"main", "", 0, "checkout"}}), 1);
  EXPECT_EQ(at({{"libshop.so!0x12", "", 0, "libshop.so"}, {"main", "", 0, "checkout"}}), 0);
  // Nobody else is there.
  EXPECT_EQ(at({{"malloc", "", 0, "libc.so.6"}}), 0);
}

}  // namespace
}  // namespace heapflare::leak
