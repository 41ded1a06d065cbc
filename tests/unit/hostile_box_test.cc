// Damaged boxes: whatever is in the file, reading it and making every kind of profile of it ends,
// and without a crash. Says most with the sanitizers.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <random>

#include "lib/pprof/legacy_text.h"
#include "lib/profile/export.h"
#include "lib/profile/folded.h"
#include "lib/profile/json.h"
#include "lib/profile/load.h"
#include "tests/support/box_builder.h"

namespace heapflare {
namespace {

class CountingSink final : public pprof::Sink {
 public:
  bool Write(const void* /*data*/, size_t bytes) override {
    written_ += bytes;
    return true;
  }
  size_t written() const { return written_; }

 private:
  size_t written_ = 0;
};

std::string GoodBox() {
  const test::TemporaryDirectory directory;
  test::BoxBuilder box(directory.File("good.box"));
  box.FillPlausibly(20);
  box.Publish();
  std::ifstream file(directory.File("good.box"), std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Everything that there is to be read, in a copy of exactly that size, so that one byte too far is
// seen.
void ReadEverything(const std::string& bytes, bool profiles) {
  const auto copy = std::make_unique<std::byte[]>(bytes.size());
  memcpy(copy.get(), bytes.data(), bytes.size());
  base::Text<256> problem;
  box::Reader reader;
  if (!reader.Open(copy.get(), bytes.size(), &problem)) {
    EXPECT_GT(problem.size(), 0u);
    return;
  }
  uint64_t sum = 0;
  box::ModuleView module = {};
  for (uint64_t i = 0; i < reader.module_count(); ++i) {
    if (!reader.module(i, &module)) continue;
    for (const char c : module.path) sum += static_cast<uint8_t>(c);
    for (uint32_t k = 0; k < module.build_id_bytes; ++k) sum += module.build_id[k];
  }
  box::StackView stack = {};
  for (uint64_t i = 0; i < reader.stack_count(); ++i) {
    if (!reader.stack(i, &stack)) continue;
    for (uint32_t k = 0; k < stack.depth; ++k) sum += stack.frames[k];
  }
  box::Sample sample = {};
  for (uint64_t i = 0; i < reader.sample_slots(); ++i) sum += reader.sample(i, &sample) ? 1 : 0;
  const auto walk = [&sum](box::Reader::Range range, auto read) {
    for (uint64_t i = range.end; i > range.first && range.end - i < 5000; --i) sum += read(i - 1);
  };
  box::TimelinePoint point = {};
  box::Event event = {};
  walk(reader.history(), [&](uint64_t i) { return reader.history(i, &point); });
  walk(reader.recent(), [&](uint64_t i) { return reader.recent(i, &point); });
  walk(reader.events(), [&](uint64_t i) { return reader.event(i, &event); });
  EXPECT_NE(sum, ~uint64_t{0});

  CountingSink sink;
  pprof::Encode(reader, {}, &sink);
  pprof::EncodeLegacyText(reader, &sink);
  if (!profiles) return;
  const auto profile = profile::FromBox(reader, {});
  if (!profile.ok()) return;
  EXPECT_TRUE(profile::WriteFolded(*profile, 3, &sink).ok());
  EXPECT_TRUE(profile::WriteJson(*profile, nullptr, &sink).ok());
}

TEST(HostileBox, WithFlippedBitsIsReadOrRefused) {
  const std::string good = GoodBox();
  std::mt19937 random(1);
  // Most of the file is holes: half of the flips go to the header, the rest to where something is.
  std::vector<size_t> filled;
  for (size_t i = 4096; i < good.size(); ++i) {
    if (good[i] != 0) filled.push_back(i);
  }
  for (int round = 0; round < 3000; ++round) {
    std::string bad = good;
    for (uint32_t flips = 1 + random() % 4; flips > 0; --flips) {
      const size_t at =
          random() % 2 == 0 ? random() % sizeof(box::Header) : filled[random() % filled.size()];
      bad[at] = static_cast<char>(bad[at] ^ 1 << random() % 8);
    }
    ReadEverything(bad, round % 10 == 0);
  }
}

TEST(HostileBox, WithStrangeNumbersIsReadOrRefused) {
  const std::string good = GoodBox();
  constexpr uint64_t kStrange[] = {0, 1, 0xffffffff, ~uint64_t{0}, uint64_t{1} << 63, 4096};
  for (size_t at = 0; at + 8 <= sizeof(box::Header); at += 4) {
    for (const uint64_t value : kStrange) {
      std::string bad = good;
      memcpy(bad.data() + at, &value, sizeof(value));
      ReadEverything(bad, at % 64 == 0);
    }
  }
}

TEST(HostileBox, CutAnywhereIsReadOrRefused) {
  const std::string good = GoodBox();
  std::mt19937 random(2);
  for (int round = 0; round < 1000; ++round) {
    const size_t length = round < 200 ? static_cast<size_t>(round) * 41 : random() % good.size();
    ReadEverything(good.substr(0, length), round % 10 == 0);
  }
}

TEST(HostileBox, WithCountersThatCannotBeIsReadAllTheSame) {
  // Each fits its field; the sum of so many fits none.
  constexpr uint32_t kStacks = 600;
  const test::TemporaryDirectory directory;
  test::BoxBuilder box(directory.File("full.box"));
  for (uint32_t i = 0; i < kStacks; ++i) {
    const uint32_t index = box.AddStack({0x400010 + i * 16});
    box::Stack& stack = box.mapping().Records<box::Stack>(box::kStacks)[index];
    stack.allocated_objects = stack.allocated_bytes = ~uint64_t{0};
  }
  box.Publish();
  std::ifstream file(directory.File("full.box"), std::ios::binary);
  ReadEverything({std::istreambuf_iterator<char>(file), {}}, true);
  const auto loaded = target::BoxFile::Load(directory.File("full.box"));
  ASSERT_TRUE(loaded.ok());
  EXPECT_NE(profile::Summary(*loaded).find("600 stacks"), std::string::npos);
}

// A ring that claims as many slots as the largest box could hold, of which the file has a few: a
// reader that looks for each of them is busy for a while, and there are three rings.
TEST(HostileBox, WhoseRingsClaimMoreThanTheFileHoldsIsReadNoLongerThanTheFileIs) {
  std::string bad = GoodBox();
  box::Header header = {};
  memcpy(&header, bad.data(), sizeof(header));
  header.file_bytes = box::kMaximumFileBytes;
  box::Region& events = header.regions[box::kEvents];
  const uint64_t held = (bad.size() - events.offset) / events.record_bytes;
  box::Region& last = header.regions[box::kGrowth];
  constexpr uint64_t kPage = 4096;
  last.offset = (header.file_bytes - last.capacity * last.record_bytes) / kPage * kPage;
  events.capacity = (last.offset - events.offset) / events.record_bytes;
  ASSERT_GT(events.capacity, 50'000'000u);
  for (const uint64_t used :
       {uint64_t{3}, held + 1, events.capacity, 5 * events.capacity + 2, ~uint64_t{0}}) {
    events.used = used;
    memcpy(bad.data(), &header, sizeof(header));
    base::Text<256> problem;
    box::Reader reader;
    ASSERT_TRUE(reader.Open(bad.data(), bad.size(), &problem)) << problem.view();
    const box::Reader::Range range = reader.events();
    EXPECT_LE(range.first, range.end);
    EXPECT_LE(range.end, used);
    EXPECT_LE(range.end - range.first, held);
    // What there is, is still found.
    box::Event event = {};
    if (used <= events.capacity) {
      EXPECT_EQ(range.first, 0u);
    }
    for (uint64_t i = range.first; i < range.end; ++i) reader.event(i, &event);
    ReadEverything(bad, false);
  }
}

TEST(HostileBox, CutWithinARingStillHasItsFirstPoints) {
  const std::string good = GoodBox();
  box::Header header = {};
  memcpy(&header, good.data(), sizeof(header));
  const box::Region& ring = header.regions[box::kRecent];
  ASSERT_GE(ring.used, 3u);
  const std::string cut = good.substr(0, ring.offset + 2 * ring.record_bytes);
  base::Text<256> problem;
  box::Reader reader;
  ASSERT_TRUE(reader.Open(cut.data(), cut.size(), &problem));
  box::TimelinePoint point = {};
  ASSERT_EQ(reader.recent().end - reader.recent().first, 2u);
  EXPECT_TRUE(reader.recent(0, &point) && reader.recent(1, &point));
  EXPECT_FALSE(reader.recent(2, &point));
}

TEST(HostileBox, OfNoiseIsRefused) {
  std::mt19937 random(3);
  for (int round = 0; round < 500; ++round) {
    std::string noise(random() % 20000, 0);
    for (char& c : noise) c = static_cast<char>(random());
    if (round % 2 == 0 && noise.size() >= 8) memcpy(noise.data(), &box::kMagic, 8);
    ReadEverything(noise, true);
  }
}

// Every stack claims the same deepest frames: the profile would be far larger than the box.
TEST(HostileBox, WhoseStacksShareTheirFramesDoesNotTakeAllMemory) {
  const test::TemporaryDirectory directory;
  test::BoxBuilder box(directory.File("a.box"), 16 << 20);
  std::vector<uint64_t> deep;
  for (uint64_t i = 0; i < box::kMaxFrames; ++i) deep.push_back(0x400010 + i * 16);
  const uint32_t first = box.AddStack(deep);
  auto* stacks = box.mapping().Records<box::Stack>(box::kStacks);
  const box::Stack model = stacks[first];
  for (;;) {
    uint64_t index = 0;
    if (!box.mapping().Take(box::kStacks, 1, &index)) break;
    stacks[index] = model;
    stacks[index].allocated_objects = 1 << box::kObjectShift;
  }
  box.Publish();
  base::Text<256> problem;
  box::Reader reader;
  ASSERT_TRUE(reader.Open(box.mapping().base(), box.mapping().bytes(), &problem));
  const auto profile = profile::FromBox(reader, {});
  EXPECT_TRUE(profile.ok() || absl::IsResourceExhausted(profile.status())) << profile.status();
}

}  // namespace
}  // namespace heapflare
