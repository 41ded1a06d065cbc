// The tables of a box with many threads at work and a reader looking on. Says most under TSan
// (preset tsan): what is accessed without order is reported there, on any machine.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "lib/box/reader.h"
#include "lib/pprof/encoder.h"
#include "lib/pprof/legacy_text.h"
#include "tests/support/box_builder.h"

namespace heapflare::box {
namespace {

constexpr int kThreads = 6;

class NullSink final : public pprof::Sink {
 public:
  bool Write(const void* /*data*/, size_t /*bytes*/) override { return true; }
};

class BoxThreads : public testing::Test {
 protected:
  BoxThreads() {
    EXPECT_EQ(mapping_.Create({.path = nullptr, .file_bytes = kBytes, .mode = 0600}), 0);
    module_now_ = 0;
    EXPECT_EQ(stacks_.Attach(&mapping_, [](uint64_t) { return module_now_.load(); }), 0);
    EXPECT_EQ(samples_.Attach(&mapping_), 0);
    mapping_.header().magic = kMagic;
    mapping_.header().max_frames = 64;
    Atomic(mapping_.header().state)
        .store(static_cast<uint32_t>(State::kRunning), std::memory_order_release);
  }
  ~BoxThreads() override {
    samples_.Detach();
    stacks_.Detach();
    mapping_.Forget();
  }

  // Runs `work(thread number)` on all threads, starting together, and `look` again and again on
  // this one until they are done, once at least.
  template <typename Work, typename Look>
  void Run(Work work, Look look) {
    std::atomic<int> running = kThreads;
    std::atomic<bool> go = false;
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        while (!go) std::this_thread::yield();
        work(static_cast<uint32_t>(i));
        --running;
      });
    }
    go = true;
    do {
      look();
    } while (running > 0);
    for (std::thread& thread : threads) thread.join();
  }

  static Sample SampleAt(uint64_t address, uint32_t thread) {
    return {.address = address,
            .size_and_marks = WithoutMarks(address),
            .weight = address * 3,
            .stack = static_cast<uint32_t>(address >> 4),
            .born_tenths = thread};
  }
  Reader Read() {
    Reader reader;
    base::Text<256> problem;
    EXPECT_TRUE(reader.Open(mapping_.base(), mapping_.bytes(), &problem)) << problem.c_str();
    return reader;
  }
  // As the recorder's thread does when it dumps.
  void Dump() {
    NullSink sink;
    const Reader reader = Read();
    EXPECT_TRUE(pprof::Encode(reader, {}, &sink));
    EXPECT_TRUE(pprof::EncodeLegacyText(reader, &sink));
  }

  static constexpr uint64_t kBytes = 8 << 20;
  // The index, plus one, of the module that holds every address; 0: none is known.
  static inline std::atomic<uint32_t> module_now_;
  Mapping mapping_;
  StackTable stacks_;
  SampleTable samples_;
};

TEST_F(BoxThreads, SamplesOfDifferentAddressesDoNotDisturbEachOther) {
  constexpr uint64_t kEach = 3000;
  std::atomic<uint64_t> left = 0;
  Run(
      [&](uint32_t thread) {
        std::mt19937_64 random(thread);
        std::vector<uint64_t> mine;
        uint64_t next = (uint64_t{thread} + 1) << 40;
        for (uint64_t i = 0; i < kEach; ++i) {
          // A free one may get the address that another thread has just given back.
          const uint64_t address = next += 16 + random() % 64 * 16;
          ASSERT_NE(samples_.Insert(SampleAt(address, thread), thread), SampleTable::Room::kNone);
          mine.push_back(address);
          if (random() % 3 != 0) continue;
          std::swap(mine[random() % mine.size()], mine.back());
          Sample sample = {};
          ASSERT_TRUE(samples_.Remove(mine.back(), &sample, thread));
          EXPECT_EQ(SizeOf(sample), mine.back());
          EXPECT_EQ(sample.weight, mine.back() * 3);
          EXPECT_EQ(sample.born_tenths, thread);
          EXPECT_FALSE(samples_.Remove(mine.back(), &sample, thread));
          mine.pop_back();
        }
        // All the others are there.
        for (; mine.size() > 100; mine.pop_back()) {
          Sample sample = {};
          ASSERT_TRUE(samples_.Remove(mine.back(), &sample, thread));
        }
        left += mine.size();
      },
      [&] {
        const Reader reader = Read();
        Sample sample = {};
        for (uint64_t i = 0; i < reader.sample_slots(); ++i) {
          if (!reader.sample(i, &sample)) continue;
          // Whatever is read is one sample, not parts of two.
          ASSERT_EQ(SizeOf(sample), sample.address);
          ASSERT_EQ(sample.weight, sample.address * 3);
          ASSERT_EQ(sample.stack, static_cast<uint32_t>(sample.address >> 4));
        }
      });
  EXPECT_EQ(samples_.live(), left);
}

TEST_F(BoxThreads, AnAddressGoesFromThreadToThread) {
  // Few slots' worth of addresses, each handed on as an allocator does: through an atomic.
  constexpr size_t kBlocks = 16;
  std::atomic<uint64_t> blocks[kBlocks];
  for (size_t i = 0; i < kBlocks; ++i) blocks[i] = 0x10000 + i * 16;
  Run(
      [&](uint32_t thread) {
        std::mt19937_64 random(thread);
        for (int i = 0; i < 20000; ++i) {
          std::atomic<uint64_t>& block = blocks[random() % kBlocks];
          const uint64_t address = block.exchange(0, std::memory_order_acquire);
          if (address == 0) continue;
          ASSERT_NE(samples_.Insert(SampleAt(address, thread), thread), SampleTable::Room::kNone);
          Sample sample = {};
          ASSERT_TRUE(samples_.Remove(address, &sample, thread));
          ASSERT_EQ(sample.born_tenths, thread);
          block.store(address, std::memory_order_release);
        }
      },
      [&] {
        const Reader reader = Read();
        Sample sample = {};
        for (uint64_t i = 0; i < reader.sample_slots(); ++i) {
          if (reader.sample(i, &sample)) {
            ASSERT_EQ(sample.weight, SizeOf(sample) * 3);
          }
        }
      });
  EXPECT_EQ(samples_.live(), 0u);
}

TEST_F(BoxThreads, TheSameStackIsTheSameForAll) {
  constexpr uint32_t kStacks = 4000;
  std::vector<uint32_t> found[kThreads];
  Run(
      [&](uint32_t thread) {
        found[thread].resize(kStacks);
        for (int round = 0; round < 3; ++round) {
          for (uint32_t i = 0; i < kStacks; ++i) {
            uint64_t frames[8];
            for (uint32_t k = 0; k < 8; ++k) frames[k] = 0x400000 + (i * 8 + k) % 6000 * 16;
            // With a key and without: both ways lead to the same stack.
            const uint64_t key = (i + 1) * 0x9e3779b97f4a7c15;
            const uint32_t stack = stacks_.Intern(frames, 8, 0, round == 1 ? 0 : key);
            ASSERT_NE(stack, kOtherStack);
            if (round > 0) {
              ASSERT_EQ(stack, found[thread][i]);
            }
            found[thread][i] = stack;
            stacks_.AddAllocated(stack, 2, 20, thread);
            stacks_.AddFreed(stack, 1, 10, thread);
          }
        }
      },
      [&] { Dump(); });
  for (int thread = 1; thread < kThreads; ++thread) EXPECT_EQ(found[thread], found[0]);

  // One address, one location; and the counters have every operation.
  const Reader reader = Read();
  std::set<uint64_t> addresses;
  Location location = {};
  for (uint64_t i = 0; i < reader.location_count(); ++i) {
    if (!reader.location(i, &location)) continue;
    EXPECT_TRUE(addresses.insert(location.pc).second) << "twice: " << std::hex << location.pc;
  }
  EXPECT_EQ(addresses.size(), 6000u);
  uint64_t live = 0;
  StackView stack = {};
  for (uint64_t i = 0; i < reader.stack_count(); ++i) {
    if (reader.stack(i, &stack)) live += stack.live_bytes;
  }
  EXPECT_EQ(live, uint64_t{kThreads} * kStacks * 3 * 10);
}

TEST_F(BoxThreads, ModulesComeAndGoWhileStacksAreInterned) {
  std::atomic<bool> stop = false;
  // As a scan of the memory map does it: one thread at a time appends, and marks what has gone.
  std::thread scanner([&] {
    for (uint32_t i = 0; i < 300 && !stop; ++i) {
      uint64_t text = 0;
      uint64_t index = 0;
      ASSERT_TRUE(mapping_.Take(kStrings, 5, &text) && mapping_.Take(kModules, 1, &index));
      memcpy(mapping_.Records<char>(kStrings) + text, "/a.so", 5);
      Module& module = mapping_.Records<Module>(kModules)[index];
      module.start = 0x400000;
      module.limit = 0x500000;
      module.path_offset = static_cast<uint32_t>(text);
      module.path_bytes = 5;
      Atomic(module.state)
          .store(static_cast<uint32_t>(ModuleState::kLoaded), std::memory_order_release);
      Atomic(module.limit).store(0x500000 + i * 4096, std::memory_order_relaxed);
      module_now_ = static_cast<uint32_t>(index) + 1;
      if (i == 0) continue;
      Atomic(mapping_.Records<Module>(kModules)[index - 1].state)
          .store(static_cast<uint32_t>(ModuleState::kUnloaded), std::memory_order_release);
    }
  });
  Run(
      [&](uint32_t thread) {
        for (uint32_t i = 0; i < 2000; ++i) {
          uint64_t frames[3] = {0x400010 + i % 50 * 16, 0x400010 + thread * 16, 0x400010};
          stacks_.AddAllocated(stacks_.Intern(frames, 3, 0), 1, 10);
        }
      },
      [&] { Dump(); });
  stop = true;
  scanner.join();
  Dump();
}

TEST_F(BoxThreads, ARingIsReadWholeWhileItGoesRound) {
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    Region& region = mapping_.header().regions[kRecent];
    ASSERT_TRUE(mapping_.Reserve(kRecent, region.capacity * region.record_bytes));
    // A ring of a few slots, so that the writer laps the reader often.
    const uint64_t slots = 4;
    for (uint64_t number = 0; !stop; ++number) {
      TimelinePoint point = {};
      point.usage = point.limit = point.live_heap = point.oom_kills = number;
      PublishInRing(point, number, mapping_.Records<TimelinePoint>(kRecent) + number % slots);
      Atomic(region.used).store(number + 1, std::memory_order_release);
    }
  });
  uint64_t read = 0;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (read < 2000 && std::chrono::steady_clock::now() < deadline) {
    const uint64_t end = Load(mapping_.header().regions[kRecent].used, std::memory_order_acquire);
    for (uint64_t number = end < 4 ? 0 : end - 4; number < end; ++number) {
      TimelinePoint point = {};
      if (!ReadFromRing(mapping_.Records<TimelinePoint>(kRecent)[number % 4], number, &point)) {
        continue;
      }
      ++read;
      ASSERT_EQ(point.usage, number);
      ASSERT_EQ(point.limit, number);
      ASSERT_EQ(point.live_heap, number);
      ASSERT_EQ(point.oom_kills, number);
    }
  }
  stop = true;
  writer.join();
  EXPECT_GE(read, 2000u);
}

}  // namespace
}  // namespace heapflare::box
