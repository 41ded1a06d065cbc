// The box as a whole: what is written is read back, also after a kill at any moment, and nothing in
// a file can hurt the reader.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "lib/box/mapping.h"
#include "lib/box/reader.h"
#include "lib/box/sample_table.h"
#include "lib/box/stack_table.h"

namespace heapflare::box {
namespace {

uint32_t NoModule(uint64_t /*pc*/) { return 0; }

// A box with its tables, in a file of its own that goes with it.
class TestBox {
 public:
  explicit TestBox(uint64_t bytes = 4 << 20) {
    char name[] = "/tmp/heapflare-box-test-XXXXXX";
    close(mkstemp(name));
    unlink(name);
    path_ = name;
    EXPECT_EQ(mapping.Create({.path = path_.c_str(), .file_bytes = bytes, .mode = 0600}), 0);
    mapping.header().magic = kMagic;
    mapping.header().interval = 1;
    EXPECT_EQ(stacks.Attach(&mapping, NoModule), 0);
    EXPECT_EQ(samples.Attach(&mapping), 0);
    mapping.header().state = static_cast<uint32_t>(State::kRunning);
  }
  ~TestBox() {
    stacks.Detach();
    samples.Detach();
    mapping.Forget();
    unlink(path_.c_str());
  }
  TestBox(const TestBox&) = delete;
  TestBox& operator=(const TestBox&) = delete;

  uint32_t Intern(std::vector<uint64_t> frames, uint32_t flags = 0) {
    return stacks.Intern(frames.data(), static_cast<uint32_t>(frames.size()), flags);
  }
  bool Insert(const Sample& sample, uint32_t counter = 0) {
    return samples.Insert(sample, counter) != SampleTable::Room::kNone;
  }
  std::string Bytes() const {
    std::stringstream text;
    text << std::ifstream(path_, std::ios::binary).rdbuf();
    return text.str();
  }

  const std::string& path() const { return path_; }

  Mapping mapping;
  StackTable stacks;
  SampleTable samples;

 private:
  std::string path_;
};

TEST(Box, IsAFileWithTheModeThatWasAskedFor) {
  Mapping mapping;
  const std::string path = "/tmp/heapflare-box-mode-" + std::to_string(getpid());
  const mode_t before = umask(0077);
  ASSERT_EQ(mapping.Create({.path = path.c_str(), .file_bytes = 1 << 20, .mode = 0640}), 0);
  struct stat status = {};
  ASSERT_EQ(stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0640u);
  Mapping second;
  EXPECT_EQ(second.Create({.path = path.c_str(), .file_bytes = 1 << 20, .mode = 0640}), -EEXIST);
  mapping.Forget();
  unlink(path.c_str());
  umask(before);
}

TEST(Box, TouchesFewPagesWhileItIsSmall) {
  const TestBox box(16 << 20);
  struct stat status = {};
  ASSERT_EQ(stat(box.path().c_str(), &status), 0);
  EXPECT_EQ(status.st_size, 16 << 20);
  EXPECT_LT(status.st_blocks * 512, 512 << 10);
}

TEST(StackTable, GivesEqualStacksTheSameRecord) {
  TestBox box;
  const uint32_t a = box.Intern({1, 2, 3});
  EXPECT_EQ(box.Intern({1, 2, 3}), a);
  EXPECT_NE(box.Intern({1, 2, 4}), a);
  EXPECT_NE(box.Intern({1, 2}), a);
  EXPECT_NE(box.Intern({1, 2, 3}, kStackTruncated), a);
  EXPECT_EQ(box.mapping.header().regions[kLocations].used, 4u);
}

TEST(StackTable, FoldsIntoTheOtherStackWhenItIsFull) {
  TestBox box(1 << 20);
  uint64_t folded = 0;
  for (uint64_t i = 1; i < 20'000; ++i) {
    if (box.Intern({i * 16, i * 32 + 7, 99}) == kOtherStack) ++folded;
  }
  EXPECT_GT(folded, 0u);
  EXPECT_LT(folded, 20'000u);
  // What has a record keeps it.
  EXPECT_NE(box.Intern({16, 39, 99}), kOtherStack);
}

TEST(StackTable, ThreadsThatMeetTheSameNewStacksAgree) {
  TestBox box;
  constexpr int kThreads = 8;
  constexpr uint64_t kStacks = 2000;
  std::vector<std::vector<uint32_t>> got(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < kStacks; ++i) {
        got[static_cast<size_t>(t)].push_back(box.Intern({i + 1, i / 2 + 10'000, i / 4 + 20'000}));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int t = 1; t < kThreads; ++t) EXPECT_EQ(got[static_cast<size_t>(t)], got[0]);
  // No address has two locations, though threads wrote them at the same moment.
  std::map<uint64_t, int> seen;
  for (uint64_t i = 0; i < box.mapping.header().regions[kLocations].used; ++i) {
    const uint64_t pc = box.mapping.Records<Location>(kLocations)[i].pc;
    if (pc == 0) continue;
    EXPECT_EQ(++seen[pc], 1) << pc;
  }
}

TEST(SampleTable, FindsWhatWasInsertedAndNothingElse) {
  TestBox box;
  std::mt19937_64 random(1);
  std::map<uint64_t, uint64_t> expected;
  for (int i = 0; i < 200'000; ++i) {
    const uint64_t address = 0x7f0000000000 + random() % 40'000 * 16;
    const auto found = expected.find(address);
    Sample sample = {};
    if (found == expected.end()) {
      ASSERT_FALSE(box.samples.Remove(address, &sample));
      const uint64_t size = random() % 1000;
      if (box.Insert({address, size, 65536, 1, 0})) expected[address] = size;
    } else {
      ASSERT_TRUE(box.samples.Remove(address, &sample));
      EXPECT_EQ(SizeOf(sample), found->second);
      EXPECT_EQ(sample.address, address);
      expected.erase(found);
    }
  }
  EXPECT_EQ(box.samples.live(), expected.size());
}

TEST(SampleTable, HoldsNothingAtTheNullPointer) {
  TestBox box;
  // In the slots around the home of address 0, and some of them free again.
  for (uint64_t i = 1; i <= 2000; ++i) {
    ASSERT_TRUE(box.Insert({i * 16, 1, 65536, 1, 0}));
  }
  Sample sample = {};
  for (uint64_t i = 1; i <= 2000; i += 2) ASSERT_TRUE(box.samples.Remove(i * 16, &sample));
  for (const uint64_t mark : {uint64_t{0}, kSampleClaimed}) {
    EXPECT_FALSE(box.samples.Remove(mark, &sample));
  }
  EXPECT_EQ(box.samples.live(), 1000u);
}

// The slot that holds the sample.
uint64_t SlotOf(TestBox* box, uint64_t address) {
  const auto* const records = box->mapping.Records<Sample>(kSamples);
  for (uint64_t slot = 0; slot < box->samples.slots_in_use(); ++slot) {
    if (records[slot].address == address) return slot;
  }
  ADD_FAILURE() << "no sample at " << address;
  return 0;
}

TEST(SampleTable, KeepsWhatPassesFoundOfASample) {
  TestBox box;
  constexpr uint64_t kAddress = 0x7f0000001000;
  constexpr uint32_t kBorn = 17;
  ASSERT_TRUE(box.Insert({kAddress, 100, 65536, 1, kBorn}));
  const uint64_t slot = SlotOf(&box, kAddress);
  const auto mark = [&](bool unreachable, bool indirect = false) {
    return box.samples.Mark(slot, kAddress, kBorn, unreachable, indirect, 3);
  };
  const auto now = [&] { return box.mapping.Records<Sample>(kSamples)[slot]; };
  EXPECT_EQ(mark(true), 1u);
  EXPECT_EQ(mark(true, true), 2u);
  EXPECT_TRUE(IsIndirect(now()));
  EXPECT_FALSE(WasCalledUnreachable(now()));
  // One that finds a reference starts the row anew.
  EXPECT_EQ(mark(false), 0u);
  EXPECT_FALSE(IsIndirect(now()));
  for (uint32_t i = 1; i <= 3; ++i) EXPECT_EQ(mark(true), i);
  EXPECT_TRUE(WasCalledUnreachable(now()));
  EXPECT_EQ(mark(false), 0u);
  EXPECT_TRUE(WasCalledUnreachable(now()));
  for (int i = 0; i < 300; ++i) mark(true);
  EXPECT_EQ(UnreachablePasses(now()), kMostPasses);
  EXPECT_EQ(SizeOf(now()), 100u);
  // Another sample at the same address is another one.
  EXPECT_EQ(box.samples.Mark(slot, kAddress, kBorn + 1, true, false, 3), 0u);
  Sample removed = {};
  ASSERT_TRUE(box.samples.Remove(kAddress, &removed));
  EXPECT_EQ(SizeOf(removed), 100u);
  EXPECT_TRUE(WasCalledUnreachable(removed));
  EXPECT_EQ(mark(true), 0u);
  ASSERT_TRUE(box.Insert({kAddress, 100, 65536, 1, kBorn + 30}));
  EXPECT_EQ(now().size_and_marks, 100u);
}

TEST(SampleTable, GrowsByLevelsUntilItIsFull) {
  TestBox box;
  EXPECT_EQ(box.mapping.header().sample_levels, 1u);
  uint64_t inserted = 0;
  for (uint64_t i = 1; i <= box.samples.capacity() + 1000; ++i) {
    inserted += box.Insert({i * 4096, 1, 65536, 1, 0}) ? 1 : 0;
  }
  EXPECT_EQ(box.mapping.header().sample_levels, kSampleLevels);
  EXPECT_GT(inserted, box.samples.capacity() * 9 / 10);
  EXPECT_LE(inserted, box.samples.capacity());
}

TEST(SampleTable, IsSharedByThreads) {
  TestBox box;
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 8; ++t) {
    threads.emplace_back([&box, t] {
      std::mt19937_64 random(t);
      std::vector<uint64_t> mine;
      for (uint64_t i = 1; i < 50'000; ++i) {
        const uint64_t address = (t << 40) + i * 16;
        if (box.Insert({address, i, 65536, 1, 0}, static_cast<uint32_t>(t)))
          mine.push_back(address);
        if (mine.size() > 500) {
          std::swap(mine[random() % mine.size()], mine.back());
          Sample sample = {};
          ASSERT_TRUE(box.samples.Remove(mine.back(), &sample));
          ASSERT_EQ(SizeOf(sample), (mine.back() & 0xffffffffff) / 16);
          mine.pop_back();
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(box.samples.live(), 8u * 500);
}

// A process that allocates and frees in its own box until it is killed.
[[noreturn]] void UseForEver(TestBox& box, unsigned seed) {
  std::mt19937_64 random(seed);
  std::vector<uint64_t> live;
  for (uint64_t i = 1;; ++i) {
    const uint32_t stack = box.Intern({i % 3000 + 1, i % 7 + 5000, 9000});
    const uint64_t address = i * 16;
    box.stacks.AddAllocated(stack, 65536, WeightedBytes(100, 65536));
    if (box.Insert({address, 100, 65536, stack, 0})) live.push_back(address);
    if (live.size() > 1000) {
      std::swap(live[random() % live.size()], live.back());
      Sample sample = {};
      box.samples.Remove(live.back(), &sample);
      live.pop_back();
      box.stacks.AddFreed(sample.stack, sample.weight,
                          WeightedBytes(SizeOf(sample), sample.weight));
    }
  }
}

TEST(Box, ReadsBackAfterSigkillAtRandomInstants) {
  std::mt19937 random(7);
  for (unsigned round = 0; round < 60; ++round) {
    TestBox box;
    const pid_t child = fork();
    if (child == 0) UseForEver(box, round);
    usleep(1000 + random() % 20'000);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);

    const std::string bytes = box.Bytes();
    Reader reader;
    base::Text<256> problem;
    ASSERT_TRUE(reader.Open(bytes.data(), bytes.size(), &problem)) << problem.c_str();
    uint64_t live_objects = 0;
    uint64_t live_bytes = 0;
    for (uint64_t i = 0; i < reader.stack_count(); ++i) {
      StackView stack = {};
      if (!reader.stack(i, &stack)) continue;
      live_objects += WholeObjects(stack.live_objects);
      live_bytes += WholeBytes(stack.live_bytes);
      for (uint32_t k = 0; k < stack.depth; ++k) {
        Location location = {};
        EXPECT_TRUE(reader.location(stack.frames[k], &location));
      }
    }
    uint64_t samples = 0;
    for (uint64_t slot = 0; slot < reader.sample_slots(); ++slot) {
      Sample sample = {};
      if (!reader.sample(slot, &sample)) continue;
      ++samples;
      EXPECT_EQ(SizeOf(sample), 100u);
    }
    // One operation was in flight at most.
    EXPECT_NEAR(static_cast<double>(live_objects), static_cast<double>(samples), 1);
    EXPECT_NEAR(static_cast<double>(live_bytes), static_cast<double>(samples * 100), 100);
  }
}

std::string GoodBox() {
  TestBox box(1 << 20);
  for (uint64_t i = 1; i < 300; ++i) {
    const uint32_t stack = box.Intern({i, i + 1, 77});
    box.stacks.AddAllocated(stack, 65536, i << kByteShift);
    box.samples.Insert({i * 64, i, 65536, stack, 0});
  }
  return box.Bytes();
}

// Reads everything; what it adds up to does not matter.
uint64_t ReadAll(const std::string& bytes) {
  Reader reader;
  base::Text<256> problem;
  if (!reader.Open(bytes.data(), bytes.size(), &problem)) return problem.size();
  uint64_t sum = reader.program().size();
  for (uint64_t i = 0; i < reader.module_count(); ++i) {
    ModuleView module = {};
    if (reader.module(i, &module)) {
      for (const char c : module.path) sum += static_cast<unsigned char>(c);
      for (uint32_t k = 0; k < module.build_id_bytes; ++k) sum += module.build_id[k];
    }
  }
  for (uint64_t i = 0; i < reader.stack_count(); ++i) {
    StackView stack = {};
    if (!reader.stack(i, &stack)) continue;
    for (uint32_t k = 0; k < stack.depth; ++k) {
      Location location = {};
      if (reader.location(stack.frames[k], &location)) sum += location.pc;
    }
  }
  for (uint64_t i = 0; i < reader.sample_slots(); ++i) {
    Sample sample = {};
    if (reader.sample(i, &sample)) sum += SizeOf(sample);
  }
  TimelinePoint point = {};
  Event event = {};
  const auto few = [](Reader::Range range) { return std::min(range.end, range.first + 5000); };
  for (uint64_t i = reader.history().first; i < few(reader.history()); ++i)
    reader.history(i, &point);
  for (uint64_t i = reader.recent().first; i < few(reader.recent()); ++i) reader.recent(i, &point);
  for (uint64_t i = reader.events().first; i < few(reader.events()); ++i) reader.event(i, &event);
  return sum;
}

TEST(Reader, SaysWhatIsWrongWithAForeignFile) {
  Reader reader;
  base::Text<256> problem;
  EXPECT_FALSE(reader.Open("\177ELF\2\1\1\0 and more", 16, &problem));
  EXPECT_NE(std::string(problem.view()).find("not a heapflare box"), std::string::npos);
  EXPECT_FALSE(reader.Open("", 0, &problem));
  std::string box = GoodBox();
  EXPECT_FALSE(reader.Open(box.data(), 1000, &problem));
  EXPECT_NE(std::string(problem.view()).find("cut off"), std::string::npos);
  box[8] = 99;
  EXPECT_FALSE(reader.Open(box.data(), box.size(), &problem));
  EXPECT_NE(std::string(problem.view()).find("format 99"), std::string::npos);
}

TEST(Reader, TakesWhatIsThereOfACutFile) {
  const std::string box = GoodBox();
  Reader reader;
  base::Text<256> problem;
  for (const size_t bytes : {box.size() / 2, box.size() / 3, size_t{4096}}) {
    ASSERT_TRUE(reader.Open(box.data(), bytes, &problem)) << problem.c_str();
    ReadAll(box.substr(0, bytes));
  }
}

TEST(Reader, SurvivesFlippedBitsAndCuts) {
  const std::string good = GoodBox();
  std::mt19937_64 random(42);
  for (int i = 0; i < 3000; ++i) {
    std::string bad = good;
    // Most of a box is empty; what steers the reader is in front of its regions.
    const size_t within = i % 2 == 0 ? sizeof(Header) : bad.size();
    for (uint64_t flips = random() % 8 + 1; flips > 0; --flips) {
      bad[random() % within] ^= static_cast<char>(1 << (random() % 8));
    }
    if (i % 5 == 0) bad.resize(random() % bad.size());
    // A heap block of exactly this size, so that a sanitizer sees every byte too far.
    ReadAll(bad);
  }
}

}  // namespace
}  // namespace heapflare::box
