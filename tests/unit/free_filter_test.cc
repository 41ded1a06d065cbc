// The filter that keeps free cheap.
#include "lib/recorder/free_filter.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <set>

namespace heapflare::recorder {
namespace {

const void* At(uint64_t address) { return reinterpret_cast<const void*>(address); }

TEST(FreeFilter, KnowsThePlaceOfTheOnlySampleOfAPage) {
  const auto filter = std::make_unique<FreeFilter>();
  EXPECT_FALSE(filter->MayHold(At(0x7f0000001230)));
  filter->Add(At(0x7f0000001230));
  EXPECT_TRUE(filter->MayHold(At(0x7f0000001ff0)));
  EXPECT_FALSE(filter->MayHoldAt(At(0x7f0000001ff0)));
  EXPECT_TRUE(filter->MayHoldAt(At(0x7f0000001230)));
  filter->Drop(At(0x7f0000001230));
  EXPECT_FALSE(filter->MayHold(At(0x7f0000001230)));
}

TEST(FreeFilter, RemembersWhichSampleOfTwoRemains) {
  const auto filter = std::make_unique<FreeFilter>();
  filter->Add(At(0x1000));
  filter->Add(At(0x1040));
  EXPECT_TRUE(filter->MayHoldAt(At(0x1ff0))) << "with two it cannot tell";
  filter->Drop(At(0x1000));
  EXPECT_TRUE(filter->MayHoldAt(At(0x1040)));
  EXPECT_FALSE(filter->MayHoldAt(At(0x1000)));
}

TEST(FreeFilter, NeverDeniesASampleHoweverManyThereAre) {
  const auto filter = std::make_unique<FreeFilter>();
  std::mt19937_64 random(1);
  std::set<uint64_t> held;
  // Few pages, so that counts reach their maximum.
  for (int i = 0; i < 100'000; ++i) {
    const uint64_t address = 0x10000 + random() % 4096 * 16;
    if (held.erase(address) > 0) {
      filter->Drop(At(address));
    } else {
      held.insert(address);
      filter->Add(At(address));
    }
    if (i % 1000 != 0) continue;
    for (const uint64_t live : held) {
      ASSERT_TRUE(filter->MayHold(At(live)) && filter->MayHoldAt(At(live))) << std::hex << live;
    }
  }
}

}  // namespace
}  // namespace heapflare::recorder
