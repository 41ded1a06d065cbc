// The filter that keeps free cheap.
#include "lib/recorder/free_filter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "lib/recorder/bootstrap_arena.h"

namespace heapflare::recorder {
namespace {

struct OwnFilter {
  std::unique_ptr<uint16_t[]> slots = std::make_unique<uint16_t[]>(FreeFilter::kLeastSlots);
  FreeFilter filter{slots.get()};
  FreeFilter* operator->() { return &filter; }
};

const void* At(uint64_t address) { return reinterpret_cast<const void*>(address); }

TEST(FreeFilter, KnowsThePlaceOfTheOnlySampleOfAPage) {
  OwnFilter filter;
  EXPECT_FALSE(filter->MayHold(At(0x7f0000001230)));
  filter->Add(At(0x7f0000001230));
  EXPECT_TRUE(filter->MayHold(At(0x7f0000001ff0)));
  EXPECT_FALSE(filter->MayHoldAt(At(0x7f0000001ff0)));
  EXPECT_TRUE(filter->MayHoldAt(At(0x7f0000001230)));
  filter->Drop(At(0x7f0000001230));
  EXPECT_FALSE(filter->MayHold(At(0x7f0000001230)));
}

TEST(FreeFilter, RemembersWhichSampleOfTwoRemains) {
  OwnFilter filter;
  filter->Add(At(0x1000));
  filter->Add(At(0x1040));
  EXPECT_TRUE(filter->MayHoldAt(At(0x1ff0))) << "with two it cannot tell";
  filter->Drop(At(0x1000));
  EXPECT_TRUE(filter->MayHoldAt(At(0x1040)));
  EXPECT_FALSE(filter->MayHoldAt(At(0x1000)));
}

TEST(FreeFilter, NeverDeniesASampleHoweverManyThereAre) {
  OwnFilter filter;
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

// A block of the arena that reached libc's free would end the process.
TEST(FreeFilter, StopsBlocksOfTheArenaAlsoAfterItWasCleared) {
  std::vector<char*> blocks;
  for (size_t bytes : {1, 100, 5000, 20'000}) {
    blocks.push_back(static_cast<char*>(ArenaAllocate(bytes)));
    ASSERT_NE(blocks.back(), nullptr);
  }
  const auto stopped = [&] {
    return std::all_of(blocks.begin(), blocks.end(),
                       [](const char* block) { return free_filter.MayHold(block); });
  };
  EXPECT_TRUE(stopped());
  // As in a forked child.
  free_filter.Clear();
  AddUsedArena(&free_filter);
  EXPECT_TRUE(stopped());
  // As for a large box.
  free_filter.Prepare(256 << 20, AddUsedArena);
  EXPECT_TRUE(stopped());
}

TEST(FreeFilter, TellsMorePagesApartForALargerBox) {
  std::vector<uint16_t> slots(FreeFilter::kLeastSlots);
  for (const uint64_t box_bytes : {1 << 20, 16 << 20, 256 << 20}) {
    FreeFilter filter(slots.data());
    filter.Prepare(box_bytes, [](FreeFilter*) {});
    filter.Add(At(0x1000));
    const uint64_t least_apart = FreeFilter::kLeastSlots << 12;
    EXPECT_EQ(filter.MayHold(At(0x1000 + least_apart)), box_bytes <= 16 << 20);
    EXPECT_TRUE(filter.MayHold(At(0x1000 + (uint64_t{1} << 40))));
    filter.Drop(At(0x1000));
  }
}

}  // namespace
}  // namespace heapflare::recorder
