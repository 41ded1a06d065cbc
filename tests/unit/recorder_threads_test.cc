// The parts of the recorder that many threads use at once and that can be had without it: the filter
// of frees, the slots of requests, the lock that is only tried. Says most under TSan (preset tsan).
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <random>
#include <thread>
#include <vector>

#include "lib/base/syscall.h"
#include "lib/recorder/free_filter.h"
#include "lib/recorder/own_process.h"
#include "lib/recorder/ramp_stop.h"
#include "lib/recorder/recorder.h"
#include "lib/recorder/requests.h"
#include "lib/recorder/thread.h"
#include "lib/recorder/tried_lock.h"

namespace heapflare::recorder {

// What requests.cc needs of the rest.
constinit Recorder recorder = {};
namespace {
std::atomic<int> dumps = 0;
std::atomic<bool> slow = false;
std::atomic<bool> release = false;
}  // namespace
int ThreadOfRecorder() { return 1; }
bool IsOwnProcessId() { return true; }
void WriteDump(const DumpRequest& request, DumpResult* result) {
  while (slow && !release) std::this_thread::yield();
  ++dumps;
  // Whoever waits must get the answer to what it asked.
  result->error = static_cast<int>(request.usage);
  result->path.Add(request.path);
}

namespace {

constexpr int kThreads = 6;
constexpr int64_t kSecond = 1'000'000'000;

// The recorder's thread, played.
class Server {
 public:
  Server() : thread_([this] { Serve(); }) {}
  ~Server() {
    stop_ = true;
    Ring();
    thread_.join();
  }

 private:
  void Serve() {
    while (!stop_) {
      if (!requests.Serve()) SleepUntilRung(kSecond / 100);
    }
    requests.Serve();
  }
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

// Asks for a dump under that number; the slot.
int Post(int number) {
  const std::string path = std::to_string(number);
  DumpRequest request;
  request.usage = static_cast<uint64_t>(number);
  request.path = path;
  return requests.Post(request);
}

TEST(RequestsOfManyThreads, AreAnsweredEachWithItsOwnResult) {
  requests.Clear();
  dumps = 0;
  std::atomic<int> answered = 0;
  {
    const Server server;
    std::vector<std::thread> threads;
    for (int thread = 0; thread < kThreads; ++thread) {
      threads.emplace_back([&, thread] {
        for (int i = 0; i < 500; ++i) {
          const int number = thread * 1000 + i;
          const int slot = Post(number);
          if (slot < 0) {
            std::this_thread::yield();
            continue;
          }
          DumpResult result;
          ASSERT_TRUE(requests.Wait(slot, 60 * kSecond, &result));
          EXPECT_EQ(result.error, number);
          EXPECT_EQ(result.path.view(), std::to_string(number));
          ++answered;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  EXPECT_EQ(dumps, answered);
  EXPECT_GT(answered, 500);
}

TEST(RequestsOfManyThreads, ThatAreGivenUpFreeTheirSlots) {
  requests.Clear();
  dumps = 0;
  slow = true;
  release = false;
  std::atomic<int> posted = 0;
  {
    const Server server;
    std::vector<std::thread> threads;
    for (int thread = 0; thread < kThreads; ++thread) {
      threads.emplace_back([&, thread] {
        const int slot = Post(thread);
        if (slot < 0) return;
        ++posted;
        DumpResult result;
        EXPECT_FALSE(requests.Wait(slot, kSecond / 50, &result));
      });
    }
    for (std::thread& thread : threads) thread.join();
    release = true;
    slow = false;
    // All four can be had again: at once, or when the one that was being written is done.
    int free = 0;
    const int64_t deadline = base::MonotonicNanoseconds() + 60 * kSecond;
    while (free < 4 && base::MonotonicNanoseconds() < deadline) {
      const int slot = Post(100 + free);
      if (slot < 0) {
        std::this_thread::yield();
        continue;
      }
      DumpResult result;
      ASSERT_TRUE(requests.Wait(slot, 60 * kSecond, &result));
      EXPECT_EQ(result.error, 100 + free);
      ++free;
    }
    EXPECT_EQ(free, 4);
  }
  EXPECT_GT(posted, 0);
}

TEST(Requests, ThatNobodyWaitsForFreeTheirSlots) {
  requests.Clear();
  dumps = 0;
  const Server server;
  for (int i = 0; i < 20; ++i) {
    DumpRequest request;
    ASSERT_TRUE(requests.Leave(request)) << i;
    const int64_t deadline = base::MonotonicNanoseconds() + 60 * kSecond;
    while (dumps <= i && base::MonotonicNanoseconds() < deadline) std::this_thread::yield();
    ASSERT_EQ(dumps, i + 1);
  }
}

// When each of many threads that sample came through, CLOCK_MONOTONIC in ns.
std::vector<int64_t> WaitTogether() {
  std::vector<int64_t> passed(kThreads);
  std::vector<std::thread> threads;
  for (int64_t& time : passed) {
    threads.emplace_back([&time] {
      ramp_stop.Wait();
      time = base::MonotonicNanoseconds();
    });
  }
  for (std::thread& thread : threads) thread.join();
  return passed;
}

TEST(RampStop, HoldsEveryThreadUntilTheDumpIsWritten) {
  requests.Clear();
  ramp_stop.Reset();
  slow = true;
  release = false;
  DumpRequest request;
  const int64_t begun = base::MonotonicNanoseconds();
  request.ramp_stop = ramp_stop.Begin();
  ASSERT_TRUE(requests.Leave(request));
  const Server server;
  std::atomic<int64_t> written = 0;
  std::thread clock([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    written = base::MonotonicNanoseconds();
    release = true;
  });
  const std::vector<int64_t> passed = WaitTogether();
  clock.join();
  slow = false;
  // On a machine that is slow enough, patience may have ended first.
  const int64_t earliest = std::min(written.load(), begun + RampStop::kLongest);
  for (const int64_t time : passed) EXPECT_GE(time, earliest);
}

TEST(RampStop, EndsWithoutADumpForAllAtOnce) {
  ramp_stop.Reset();
  const int64_t before = base::MonotonicNanoseconds();
  const uint32_t dump = ramp_stop.Begin();
  for (const int64_t time : WaitTogether()) EXPECT_GE(time, before + RampStop::kLongest);
  // A late end takes nothing away from the next one.
  const int64_t next = base::MonotonicNanoseconds();
  ramp_stop.Begin();
  ramp_stop.End(dump);
  for (const int64_t time : WaitTogether()) EXPECT_GE(time, next + RampStop::kLongest);
}

TEST(TriedLock, GuardsWhatIsBehindIt) {
  TriedLock lock;
  uint64_t guarded = 0;
  std::atomic<uint64_t> held = 0;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20000; ++i) {
        const uint64_t holding = lock.Try();
        if (holding == 0) continue;
        ++guarded;
        ++held;
        lock.Release(holding);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(guarded, held);
  EXPECT_GT(guarded, 0u);
  EXPECT_NE(lock.Try(), 0u);
}

TEST(FreeFilter, CountsRightWithManyThreadsOnThePagesOfOthers) {
  free_filter.Clear();
  std::vector<std::thread> threads;
  constexpr uint64_t kBase = 0x7f0000000000;
  const auto page = [](uint64_t number) {
    return reinterpret_cast<const void*>(kBase + number * 4096);
  };
  std::atomic<int> lost = 0;
  for (uint32_t thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937 random(thread);
      for (int i = 0; i < 20000; ++i) {
        const void* const block = page(random() % 8);
        free_filter.Add(block);
        if (!free_filter.MayHold(block)) ++lost;
        free_filter.Drop(block);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(lost, 0) << "a sample was there and the filter said no";
  // Fewer than 255 at a time, so nothing stuck.
  for (uint64_t i = 0; i < 8; ++i) EXPECT_FALSE(free_filter.MayHold(page(i)));
}

}  // namespace
}  // namespace heapflare::recorder
