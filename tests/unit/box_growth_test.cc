// The history of the stacks' live bytes in a box.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <set>
#include <thread>
#include <vector>

#include "lib/box/growth.h"
#include "lib/target/box_file.h"
#include "tests/support/box_builder.h"

namespace heapflare::box {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

TEST(PackedBytes, AreWithinATwothousandthOfWhatWasPutIn) {
  EXPECT_EQ(UnpackBytes(PackBytes(0)), 0);
  for (int exponent = 1; exponent < 62; ++exponent) {
    for (const uint64_t below : {uint64_t{0}, uint64_t{1}, uint64_t{12345}, uint64_t{1} << 61}) {
      const uint64_t bytes = (uint64_t{1} << exponent) + below % (uint64_t{1} << exponent);
      const auto back = static_cast<double>(UnpackBytes(PackBytes(bytes)));
      EXPECT_NEAR(back / static_cast<double>(bytes), 1, 1.0 / 2047) << bytes;
    }
  }
  EXPECT_EQ(UnpackBytes(PackBytes(~uint64_t{0})), uint64_t{1} << 62);
}

TEST(PackedBytes, AreInTheOrderOfTheBytes) {
  for (uint32_t packed = 1; packed <= 0xffff; ++packed) {
    ASSERT_LE(UnpackBytes(static_cast<uint16_t>(packed - 1)),
              UnpackBytes(static_cast<uint16_t>(packed)))
        << packed;
  }
}

// What is left of looks every second for `seconds`: ages, youngest first.
std::vector<double> AgesAfter(uint64_t seconds) {
  uint64_t times[kGrowthColumns] = {};
  for (uint64_t now = 1; now <= seconds; ++now) {
    times[ChooseGrowthColumn(times, now * kSecond)] = now * kSecond;
  }
  std::multiset<double> ages;
  for (const uint64_t time : times) {
    ages.insert(static_cast<double>(seconds * kSecond - time) / kSecond);
  }
  return {ages.begin(), ages.end()};
}

TEST(GrowthColumns, KeepTheFirstAndTheLastLook) {
  for (uint64_t seconds = 16; seconds < 3000; ++seconds) {
    const std::vector<double> ages = AgesAfter(seconds);
    ASSERT_EQ(ages.front(), 0);
    ASSERT_EQ(ages.back(), static_cast<double>(seconds - 1));
  }
}

TEST(GrowthColumns, SpreadOutWithAge) {
  for (const uint64_t seconds : {100, 1000, 100'000, 1'000'000}) {
    const std::vector<double> ages = AgesAfter(seconds);
    // Evenly in the logarithm: no ratio of neighbours is more than the square of the mean ratio,
    // with some room where ages are a few seconds.
    const double ratio = std::pow(static_cast<double>(seconds), 1.0 / (kGrowthColumns - 2));
    for (size_t i = 2; i < ages.size(); ++i) {
      EXPECT_LE(ages[i] / ages[i - 1], std::max(ratio * ratio, 3.0))
          << "of " << seconds << " s at " << ages[i];
    }
    EXPECT_LE(ages[1], 4);
  }
}

class GrowthInBox : public testing::Test {
 protected:
  // What a reader finds of a stack, oldest first.
  static std::vector<uint64_t> Values(const Reader& reader, uint64_t stack) {
    GrowthColumn columns[kGrowthColumns] = {};
    std::vector<uint64_t> values;
    const uint32_t count = reader.growth_columns(columns);
    for (uint32_t i = 0; i < count; ++i) values.push_back(reader.growth(stack, columns[i].number));
    return values;
  }

  test::TemporaryDirectory directory_;
  std::string path_ = directory_.File("a.box");
  test::BoxBuilder builder_{path_};
};

TEST_F(GrowthInBox, ReadsBackInTheOrderOfTime) {
  const uint32_t one = builder_.AddStack({0x401000});
  const uint32_t two = builder_.AddStack({0x402000});
  const uint64_t opened = builder_.header().opened_mono;
  for (uint64_t i = 1; i <= 3; ++i) {
    builder_.Allocate(two, i << 12, 1024);
    builder_.Look(opened + i * kSecond);
  }
  builder_.Allocate(one, 0x5000000, 2048);
  builder_.Publish();
  const auto box = target::BoxFile::Load(path_);
  ASSERT_TRUE(box.ok());
  EXPECT_EQ(Values(box->reader(), one), (std::vector<uint64_t>{0, 0, 0}));
  EXPECT_EQ(Values(box->reader(), two), (std::vector<uint64_t>{1024, 2048, 3072}));
  // A stack that no look has seen.
  EXPECT_EQ(Values(box->reader(), 100'000), (std::vector<uint64_t>{0, 0, 0}));
}

TEST_F(GrowthInBox, IsWithoutTheColumnThatAKillCut) {
  const uint32_t stack = builder_.AddStack({0x401000});
  const uint64_t opened = builder_.header().opened_mono;
  for (uint64_t i = 1; i <= 3; ++i) {
    builder_.Allocate(stack, i << 12, 1024);
    builder_.Look(opened + i * kSecond);
  }
  // As the recorder leaves it in the middle of a look.
  builder_.header().growth_mono[1] = 0;
  builder_.Publish();
  const auto box = target::BoxFile::Load(path_);
  ASSERT_TRUE(box.ok());
  EXPECT_EQ(Values(box->reader(), stack), (std::vector<uint64_t>{1024, 3072}));
}

// Every stack has the same number of bytes at every look, so that a mixture shows.
TEST_F(GrowthInBox, IsNeverAMixtureOfTwoLooks) {
  constexpr uint64_t kCount = 1500;
  for (uint64_t i = 0; i < kCount; ++i) builder_.AddStack({0x401000 + i * 16});
  builder_.Publish();
  std::atomic<bool> done = false;
  std::thread writer([&] {
    Stack* const stacks = builder_.mapping().Records<Stack>(RegionId::kStacks);
    for (uint64_t look = 1; !done; ++look) {
      for (uint64_t i = 0; i < kCount; ++i) {
        Atomic(stacks[i].allocated_bytes).store((look % 1000 + 1) << kByteShift);
      }
      builder_.Look(builder_.header().opened_mono + look);
    }
  });
  uint64_t columns_read = 0;
  uint64_t mixed = 0;
  for (int i = 0; i < 300; ++i) {
    const auto box = target::BoxFile::Load(path_);
    ASSERT_TRUE(box.ok());
    GrowthColumn columns[kGrowthColumns] = {};
    const uint32_t count = box->reader().growth_columns(columns);
    for (uint32_t k = 0; k < count; ++k) {
      ++columns_read;
      const uint64_t first = box->reader().growth(0, columns[k].number);
      for (uint64_t stack = 1; stack < kCount; ++stack) {
        if (box->reader().growth(stack, columns[k].number) != first) {
          ++mixed;
          break;
        }
      }
    }
  }
  done = true;
  writer.join();
  EXPECT_EQ(mixed, 0) << "of " << columns_read;
  EXPECT_GT(columns_read, 300);
}

}  // namespace
}  // namespace heapflare::box
