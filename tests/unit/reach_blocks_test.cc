// The building blocks of reachability, each alone: lib/reach.
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "lib/base/syscall.h"
#include "lib/reach/block_index.h"
#include "lib/reach/kernel_pointers.h"
#include "lib/reach/memory_map.h"
#include "lib/reach/memory_reader.h"
#include "lib/reach/stopped_threads.h"

namespace heapflare::reach {
namespace {

constexpr uint64_t kPage = 4096;
constexpr int64_t kSecond = 1'000'000'000;

TEST(BlockIndex, FindsWhatEachWordRefersTo) {
  BlockIndex index;
  ASSERT_EQ(index.Reserve(5), 0);
  ASSERT_TRUE(index.Add(0x7f0000002000, 64, 2));
  ASSERT_TRUE(index.Add(0x7f0000001000, 32, 1));
  ASSERT_TRUE(index.Add(0x7f0000001020, 16, 7));  // where the first one ends
  ASSERT_TRUE(index.Add(0x7f0000003000, 0, 3));
  ASSERT_TRUE(index.Add(0x7e0000000000, uint64_t{3} << 30, 4));
  ASSERT_FALSE(index.Add(1, 1, 9));
  index.Build();
  const auto found = [&](uint64_t word) {
    const uint32_t at = index.Find(word);
    return at == BlockIndex::kNone ? -1 : static_cast<int>(index.block(at).id);
  };
  EXPECT_EQ(found(0x7f0000001000), 1);
  EXPECT_EQ(found(0x7f000000101f), 1);  // its last byte
  EXPECT_EQ(found(0x7f0000001020), 7);  // past its end, and the start of the next
  EXPECT_EQ(found(0x7f0000001030), 7);  // one past the end
  EXPECT_EQ(found(0x7f0000001031), -1);
  EXPECT_EQ(found(0x7f0000000fff), -1);
  EXPECT_EQ(found(0xb4ff7f0000002008), 2);  // a tag in the upper 16 bits
  EXPECT_EQ(found(0x7f0000002001), 2);      // and in the lowest
  EXPECT_EQ(found(0x7f0000003000), 3);
  EXPECT_EQ(found(0x7f0000003001), -1);
  EXPECT_EQ(found(0x7e0012345678), 4);
  EXPECT_EQ(found(0x7e00c0000000), 4);
  EXPECT_EQ(found(0x7e00c0000001), -1);
  EXPECT_EQ(found(0), -1);
  EXPECT_EQ(found(~uint64_t{0}), -1);
}

TEST(BlockIndex, IsEmptyBeforeItIsBuilt) {
  BlockIndex index;
  EXPECT_EQ(index.Find(0), BlockIndex::kNone);
  EXPECT_EQ(index.Find(0x7f0000001000), BlockIndex::kNone);
  ASSERT_EQ(index.Reserve(0), 0);
  index.Build();
  EXPECT_EQ(index.Find(0x7f0000001000), BlockIndex::kNone);
}

// Against the plain definition, over blocks of all sizes that touch or nearly touch.
TEST(BlockIndex, AgreesWithTheDefinition) {
  std::mt19937_64 random(5);
  std::map<uint64_t, uint64_t> blocks;
  uint64_t at = 0x550000000000;
  for (int i = 0; i < 20'000; ++i) {
    const uint64_t size = random() % 8 == 0 ? random() % (1 << 20) : random() % 200;
    blocks[at] = size;
    at += std::max<uint64_t>(size, 1) + random() % 3 * (random() % 5'000);
  }
  BlockIndex index;
  ASSERT_EQ(index.Reserve(blocks.size()), 0);
  std::vector<std::pair<uint64_t, uint64_t>> shuffled(blocks.begin(), blocks.end());
  std::shuffle(shuffled.begin(), shuffled.end(), random);
  for (const auto& [address, size] : shuffled) ASSERT_TRUE(index.Add(address, size, 0));
  index.Build();
  for (int i = 0; i < 300'000; ++i) {
    uint64_t word = 0x550000000000 + random() % (at - 0x550000000000);
    if (i % 2 == 0) {
      const auto& [address, size] = shuffled[random() % shuffled.size()];
      word = address + (i % 4 == 0 ? size : random() % (size + 2)) - random() % 2;
    }
    auto after = blocks.upper_bound(word);
    uint64_t expected = 0;
    if (after != blocks.begin()) {
      --after;
      if (word <= after->first + after->second) expected = after->first;
    }
    const uint32_t number = index.Find(word);
    ASSERT_EQ(number == BlockIndex::kNone ? 0 : index.block(number).address, expected) << word;
  }
}

const MemoryRange* RangeOf(const MemoryMap& map, const void* address) {
  return map.Find(reinterpret_cast<uint64_t>(address));
}

char* MapPages(size_t pages, int protection = PROT_READ | PROT_WRITE,
               int flags = MAP_PRIVATE | MAP_ANONYMOUS) {
  void* const memory = mmap(nullptr, pages * kPage, protection, flags, -1, 0);
  EXPECT_NE(memory, MAP_FAILED);
  return static_cast<char*>(memory);
}

TEST(MemoryMap, KnowsWhatCanHoldReferences) {
  static int data = 1;
  char* const untouched = MapPages(4);
  char* const shared = MapPages(4, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  char* const hidden = MapPages(4);
  hidden[0] = 1;
  mprotect(hidden, kPage * 4, PROT_NONE);
  int local = 0;
  MemoryMap map;
  ASSERT_EQ(map.Read(), 0);
  ASSERT_NE(RangeOf(map, &data), nullptr);
  EXPECT_TRUE(RangeOf(map, &data)->MayRefer());
  EXPECT_EQ(RangeOf(map, &data)->kind, RangeKind::kFile);
  EXPECT_TRUE(RangeOf(map, &local)->MayRefer());
  EXPECT_EQ(RangeOf(map, &local)->kind, RangeKind::kStack);
  EXPECT_TRUE(RangeOf(map, shared)->MayRefer());
  EXPECT_TRUE(RangeOf(map, hidden)->MayRefer());
  EXPECT_FALSE(RangeOf(map, hidden)->readable);
  EXPECT_FALSE(RangeOf(map, reinterpret_cast<const void*>(&RangeOf))->MayRefer());
  EXPECT_EQ(map.Find(1), nullptr);
  munmap(untouched, kPage * 4);
  munmap(shared, kPage * 4);
  munmap(hidden, kPage * 4);
}

TEST(MemoryMap, LeavesOutWhatIsExcluded) {
  MemoryMap map;
  ASSERT_TRUE(map.Exclude(100, 50));
  ASSERT_TRUE(map.Exclude(190, 100));
  std::vector<std::pair<uint64_t, uint64_t>> parts;
  map.ForEachPart(110, 200, [&](uint64_t a, uint64_t b) { parts.emplace_back(a, b); });
  EXPECT_EQ(parts, (std::vector<std::pair<uint64_t, uint64_t>>{{150, 190}}));
  parts.clear();
  map.ForEachPart(0, 400, [&](uint64_t a, uint64_t b) { parts.emplace_back(a, b); });
  EXPECT_EQ(parts, (std::vector<std::pair<uint64_t, uint64_t>>{{0, 100}, {150, 190}, {290, 400}}));
}

std::vector<size_t> PagesOf(char* memory, size_t pages, bool shared = false) {
  std::vector<char> buffer(PresentPages::kBufferBytes);
  PresentPages present;
  present.Open(buffer.data(), true);
  const auto start = reinterpret_cast<uint64_t>(memory);
  MemoryMap map;
  EXPECT_EQ(map.Read(), 0);
  const MemoryRange* const range = map.Find(start);
  EXPECT_NE(range, nullptr);
  EXPECT_EQ(range->shared, shared);
  std::vector<size_t> found;
  uint64_t run = 0;
  uint64_t end = 0;
  for (uint64_t at = start; present.Next(*range, at, start + pages * kPage, &run, &end); at = end) {
    for (; run < end; run += kPage) found.push_back((run - start) / kPage);
  }
  return found;
}

TEST(PresentPages, AreThoseThatWereTouched) {
  // More than one look at the page map.
  constexpr size_t kPages = 40'000;
  char* const memory = MapPages(kPages);
  madvise(memory, kPages * kPage, MADV_NOHUGEPAGE);
  const std::vector<size_t> touched = {0, 1, 7, 8'191, 8'192, 20'000, kPages - 1};
  for (const size_t page : touched) memory[page * kPage] = 1;
  EXPECT_EQ(PagesOf(memory, kPages), touched);
  munmap(memory, kPages * kPage);
}

TEST(PresentPages, OfSharedMemoryAreKnownInAForkedChild) {
  char* const memory = MapPages(100, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  memory[3 * kPage] = memory[99 * kPage] = 1;
  const pid_t child = fork();
  if (child == 0) _exit(PagesOf(memory, 100, true) == std::vector<size_t>{3, 99} ? 0 : 1);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  munmap(memory, 100 * kPage);
}

TEST(PresentPages, OfAFileAreTheChangedOnes) {
  char name[] = "/tmp/heapflare-pages-XXXXXX";
  const int fd = mkstemp(name);
  ASSERT_EQ(ftruncate(fd, 8 * kPage), 0);
  auto* const memory =
      static_cast<char*>(mmap(nullptr, 8 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
  std::atomic<char> sum = 0;
  for (size_t i = 0; i < 8; ++i) sum += memory[i * kPage];
  memory[5 * kPage] = 1;
  EXPECT_EQ(PagesOf(memory, 8), std::vector<size_t>{5});
  munmap(memory, 8 * kPage);
  close(fd);
  unlink(name);
}

TEST(MemoryReader, PassesOverWhatCannotBeRead) {
  char* const memory = MapPages(4);
  memset(memory, 0x11, 4 * kPage);
  munmap(memory + kPage, kPage);
  mprotect(memory + 2 * kPage, kPage, PROT_NONE);
  std::vector<char> copy(4 * kPage, 0x77);
  MemoryReader reader;
  reader.Open();
  ASSERT_TRUE(reader.Read(reinterpret_cast<uint64_t>(memory), copy.data(), copy.size()));
  EXPECT_EQ(copy[0], 0x11);
  EXPECT_EQ(copy[kPage], 0);
  EXPECT_EQ(copy[2 * kPage], 0x11);  // whatever the protection
  EXPECT_EQ(copy[4 * kPage - 1], 0x11);
  EXPECT_EQ(reader.bytes_unread(), kPage);
  EXPECT_FALSE(reader.Read(reinterpret_cast<uint64_t>(memory) + kPage, copy.data(), kPage));
  munmap(memory, kPage);
  munmap(memory + 2 * kPage, 2 * kPage);
}

struct Words {
  std::vector<uint64_t> all;
  bool Has(const void* pointer) const {
    return std::find(all.begin(), all.end(), reinterpret_cast<uint64_t>(pointer)) != all.end();
  }
  static void Add(void* context, uint64_t word) {
    static_cast<Words*>(context)->all.push_back(word);
  }
};

TEST(KernelPointers, AreThoseOfEpollAndTimersAndCalls) {
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  int first = 0;
  int second = 0;
  epoll_event event = {.events = EPOLLIN, .data = {.ptr = &first}};
  ASSERT_EQ(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event), 0);
  sigevent when = {};
  when.sigev_notify = SIGEV_SIGNAL;
  when.sigev_signo = SIGUSR1;
  when.sigev_value.sival_ptr = &second;
  timer_t timer = {};
  ASSERT_EQ(timer_create(CLOCK_MONOTONIC, &when, &timer), 0);

  Words words;
  ASSERT_TRUE(VisitEpollData(getpid(), 0, Words::Add, &words));
  EXPECT_TRUE(words.Has(&first));
  words.all.clear();
  if (access("/proc/self/timers", R_OK) == 0) {
    ASSERT_TRUE(VisitTimers(getpid(), Words::Add, &words));
    EXPECT_TRUE(words.Has(&second));
  }
  char target[16];
  std::thread reader([&] { EXPECT_EQ(read(ends[0], target, sizeof(target)), 1); });
  const int64_t end = base::MonotonicNanoseconds() + 20 * kSecond;
  do {
    words.all.clear();
    ASSERT_TRUE(VisitSystemCalls(getpid(), Words::Add, &words));
  } while (!words.Has(target) && base::MonotonicNanoseconds() < end);
  EXPECT_TRUE(words.Has(target));
  EXPECT_EQ(write(ends[1], "x", 1), 1);
  reader.join();
  timer_delete(timer);
  close(epoll);
  close(ends[0]);
  close(ends[1]);
}

// Threads that count; a counter that moves is a thread that runs.
class Counters {
 public:
  explicit Counters(size_t threads) : counts_(threads) {
    for (std::atomic<uint64_t>& count : counts_) {
      threads_.emplace_back([this, &count] {
        while (!stop_.load(std::memory_order_relaxed)) {
          count.fetch_add(1, std::memory_order_relaxed);
          if (count % 64 == 0) std::this_thread::yield();
        }
      });
    }
    AwaitMovement();
  }
  ~Counters() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
  }
  std::vector<uint64_t> Now() const { return {counts_.begin(), counts_.end()}; }
  // False: one does not move.
  bool AwaitMovement() const {
    const std::vector<uint64_t> before = Now();
    const int64_t end = base::MonotonicNanoseconds() + 60 * kSecond;
    for (size_t i = 0; i < counts_.size(); ++i) {
      while (counts_[i] == before[i]) {
        if (base::MonotonicNanoseconds() > end) return false;
        std::this_thread::yield();
      }
    }
    return true;
  }

 private:
  std::vector<std::atomic<uint64_t>> counts_;
  std::vector<std::thread> threads_;
  std::atomic<bool> stop_ = false;
};

struct Seen {
  const Counters* counters = nullptr;
  bool stood = false;
  uint32_t seen = 0;
  uint32_t with_stack = 0;
  uint64_t wanted = 0;
  bool found = false;
};

void LookWhileStopped(void* context, const StoppedThreads& threads) {
  auto* const seen = static_cast<Seen*>(context);
  // Raw memory, as the collector may call nothing that allocates.
  for (uint32_t i = 0; i < threads.count; ++i) {
    const StoppedThread& thread = threads.threads[i];
    if (!thread.seen) continue;
    ++seen->seen;
    if (thread.stack_pointer != 0 && thread.register_bytes > 200) ++seen->with_stack;
    for (uint32_t at = 0; at + 8 <= thread.register_bytes; at += 8) {
      uint64_t word = 0;
      memcpy(&word, thread.registers + at, sizeof(word));
      seen->found = seen->found || (seen->wanted != 0 && word == seen->wanted);
    }
  }
}

StopOptions OptionsFor(Seen* seen) {
  StopOptions options;
  options.process = getpid();
  options.spared_thread = gettid();
  options.stop_budget_ns = 10 * kSecond;
  options.while_stopped = LookWhileStopped;
  options.context = seen;
  return options;
}

StopResult StopOnce(const StopOptions& options) {
  Collector collector;
  EXPECT_EQ(collector.Start(options), 0);
  EXPECT_TRUE(collector.Wait(base::MonotonicNanoseconds() + 60 * kSecond));
  EXPECT_TRUE(collector.finished());
  return collector.result();
}

// The collector's stack is none that a sanitizer knows.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

bool MayTrace() {
  if (kSanitized) return false;
  return StopOnce({.process = getpid(), .spared_thread = gettid()}).error == 0;
}

TEST(StoppedThreads, AllStandAndAllRunOn) {
  if (!MayTrace()) GTEST_SKIP() << "ptrace is refused here, or a sanitizer is";
  const Counters counters(20);
  for (int i = 0; i < 5; ++i) {
    Seen seen;
    const StopResult result = StopOnce(OptionsFor(&seen));
    EXPECT_EQ(result.error, 0);
    EXPECT_EQ(result.threads, 20u);
    EXPECT_EQ(result.threads_unseen, 0u);
    EXPECT_EQ(seen.seen, 20u);
    EXPECT_EQ(seen.with_stack, 20u);
    EXPECT_GT(result.released_ns, result.stopped_ns);
    EXPECT_TRUE(counters.AwaitMovement());
  }
}

TEST(StoppedThreads, DoNotMoveMeanwhile) {
  if (!MayTrace()) GTEST_SKIP() << "ptrace is refused here, or a sanitizer is";
  static Counters* counters = nullptr;
  Counters own(8);
  counters = &own;
  static std::atomic<uint32_t> state;
  state = 0;
  StopOptions options;
  options.process = getpid();
  options.spared_thread = gettid();
  options.stop_budget_ns = 10 * kSecond;
  options.while_stopped = [](void*, const StoppedThreads&) {
    state = 1;
    while (state == 1) base::Syscall(SYS_sched_yield);
  };
  Collector collector;
  ASSERT_EQ(collector.Start(options), 0);
  while (state == 0) std::this_thread::yield();
  const std::vector<uint64_t> first = counters->Now();
  usleep(20'000);
  EXPECT_EQ(counters->Now(), first);
  state = 2;
  ASSERT_TRUE(collector.Wait(base::MonotonicNanoseconds() + 60 * kSecond));
  EXPECT_TRUE(own.AwaitMovement());
}

TEST(StoppedThreads, RunOnWhenTheCollectorIsKilled) {
  if (!MayTrace()) GTEST_SKIP() << "ptrace is refused here, or a sanitizer is";
  const Counters counters(8);
  static std::atomic<bool> standing;
  standing = false;
  StopOptions options;
  options.process = getpid();
  options.spared_thread = gettid();
  options.while_stopped = [](void*, const StoppedThreads&) {
    standing = true;
    for (;;) base::Syscall(SYS_sched_yield);
  };
  Collector collector;
  ASSERT_EQ(collector.Start(options), 0);
  while (!standing) std::this_thread::yield();
  EXPECT_FALSE(collector.Wait(base::MonotonicNanoseconds() + kSecond / 50));
  ASSERT_TRUE(collector.Kill());
  EXPECT_FALSE(collector.finished());
  EXPECT_TRUE(counters.AwaitMovement());
}

std::atomic<uint64_t> handled = 0;

// Sent from another process, which is not stopped, so that signals meet every moment of a pass.
TEST(StoppedThreads, LoseNoSignal) {
  if (!MayTrace()) GTEST_SKIP() << "ptrace is refused here, or a sanitizer is";
  struct sigaction action = {};
  handled = 0;
  action.sa_handler = [](int) { ++handled; };
  sigaction(SIGRTMIN + 1, &action, nullptr);
  struct Shared {
    std::atomic<bool> stop;
    std::atomic<uint64_t> sent;
  };
  auto* const shared =
      reinterpret_cast<Shared*>(MapPages(1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS));
  std::atomic<bool> stop = false;
  std::atomic<pid_t> id = 0;
  std::thread target([&] {
    id = gettid();
    while (!stop) std::this_thread::yield();
  });
  while (id == 0) std::this_thread::yield();
  const pid_t process = getpid();
  const pid_t sender = fork();
  if (sender == 0) {
    while (!shared->stop) {
      if (syscall(SYS_tgkill, process, id.load(), SIGRTMIN + 1) == 0) ++shared->sent;
      // The queue is bounded.
      if (shared->sent % 4 == 0) usleep(1);
    }
    _exit(0);
  }
  for (int i = 0; i < 500; ++i) {
    Seen seen;
    StopOnce(OptionsFor(&seen));
  }
  shared->stop = true;
  ASSERT_EQ(waitpid(sender, nullptr, 0), sender);
  const int64_t end = base::MonotonicNanoseconds() + 20 * kSecond;
  while (handled != shared->sent && base::MonotonicNanoseconds() < end) std::this_thread::yield();
  EXPECT_EQ(handled, shared->sent);
  EXPECT_GT(handled, 100u);
  stop = true;
  target.join();
  munmap(shared, kPage);
}

TEST(StoppedThreads, AreSeenWhileOthersComeAndGo) {
  if (!MayTrace()) GTEST_SKIP() << "ptrace is refused here, or a sanitizer is";
  std::atomic<bool> stop = false;
  std::vector<std::thread> makers;
  makers.reserve(4);
  for (int i = 0; i < 4; ++i) {
    makers.emplace_back([&] {
      while (!stop) std::thread([] {}).join();
    });
  }
  for (int i = 0; i < 200; ++i) {
    Seen seen;
    const StopResult result = StopOnce(OptionsFor(&seen));
    ASSERT_EQ(result.error, 0);
    ASSERT_GE(seen.seen, 4u);
  }
  stop = true;
  for (std::thread& maker : makers) maker.join();
}

#if defined(__x86_64__)
TEST(StoppedThreads, ShowVectorRegisters) {
  if (!MayTrace()) GTEST_SKIP() << "ptrace is refused here, or a sanitizer is";
  std::atomic<bool> stop = false;
  std::atomic<bool> ready = false;
  constexpr uint64_t kWanted = 0x123456789abcdef5;
  std::thread holder([&] {
    asm volatile("movq %0, %%xmm13" : : "r"(kWanted) : "xmm13");
    ready = true;
    // No call in between: the register stays.
    while (!stop.load(std::memory_order_relaxed)) asm volatile("pause" : : : "memory");
  });
  while (!ready) std::this_thread::yield();
  Seen seen;
  seen.wanted = kWanted;
  StopOnce(OptionsFor(&seen));
  stop = true;
  holder.join();
  EXPECT_TRUE(seen.found);
}
#endif

// The process is stopped at any moment of many passes, and must stay so until it is continued.
TEST(StoppedThreads, StayStoppedIfTheyWere) {
  if (!MayTrace()) GTEST_SKIP() << "ptrace is refused here, or a sanitizer is";
  const pid_t child = fork();
  if (child == 0) {
    for (;;) {
      Collector collector;
      if (collector.Start({.process = getpid(), .spared_thread = 0}) != 0) _exit(1);
      if (!collector.Wait(base::MonotonicNanoseconds() + 600 * kSecond)) _exit(2);
      if (collector.result().error != 0) _exit(3);
    }
  }
  const auto state = [&] {
    std::ifstream file("/proc/" + std::to_string(child) + "/stat");
    std::string line;
    std::getline(file, line);
    return line[line.rfind(')') + 2];
  };
  std::mt19937 random(3);
  for (int i = 0; i < 100; ++i) {
    usleep(random() % 3'000);
    kill(child, SIGSTOP);
    int status = 0;
    const int64_t end = base::MonotonicNanoseconds() + 20 * kSecond;
    while (waitpid(child, &status, WUNTRACED | WNOHANG) == 0) {
      ASSERT_LT(base::MonotonicNanoseconds(), end) << "the signal was lost, pass " << i;
      usleep(100);
    }
    ASSERT_TRUE(WIFSTOPPED(status)) << status;
    // A collector that was at work wakes it when it lets it go; then it stops again.
    for (int look = 0; look < 2; ++look) {
      while (state() != 'T') ASSERT_LT(base::MonotonicNanoseconds(), end) << state() << i;
      usleep(2'000);
    }
    kill(child, SIGCONT);
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

TEST(StoppedThreads, AreLeftAloneWhereTracingIsRefused) {
  if (kSanitized) GTEST_SKIP() << "not with a sanitizer";
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_DUMPABLE, 0);
    if (setresuid(65534, 65534, 65534) != 0) _exit(77);
    static int called = 0;
    StopOptions options;
    options.process = getpid();
    options.spared_thread = 0;
    options.while_stopped = [](void*, const StoppedThreads& threads) {
      if (threads.count == 0) ++called;
    };
    Collector collector;
    if (collector.Start(options) != 0) _exit(2);
    if (!collector.Wait(base::MonotonicNanoseconds() + 60 * kSecond)) _exit(3);
    if (collector.result().error >= 0) _exit(4);
    _exit(called == 1 ? 0 : 5);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) GTEST_SKIP() << "only root can drop rights";
  EXPECT_EQ(status, 0);
}

TEST(StoppedThreads, LeaveNoChildBehind) {
  if (kSanitized) GTEST_SKIP() << "not with a sanitizer";
  Seen seen;
  StopOnce(OptionsFor(&seen));
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG | __WALL), -1);
  EXPECT_EQ(errno, ECHILD);
}

}  // namespace
}  // namespace heapflare::reach
