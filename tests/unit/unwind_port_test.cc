// The unwinder alone, without the recorder: this file is the other side of
// lib/recorder/unwind_port.h.
#define UNW_LOCAL_ONLY
#include "lib/recorder/unwind_port.h"

#include <libunwind.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace {

std::atomic<int> lookups;                      // calls of heapflare_unwind_iterate
thread_local unsigned long readable_from = 0;  // what heapflare_unwind_readable allows
thread_local unsigned long readable_to = ~0UL;
thread_local int refused = 0;  // how often it said no

}  // namespace

unsigned heapflare_unwind_generation = 0;

int heapflare_unwind_iterate(unsigned long, int (*callback)(dl_phdr_info*, size_t, void*),
                             void* data) {
  lookups.fetch_add(1, std::memory_order_relaxed);
  return dl_iterate_phdr(callback, data);
}

// Set by the linker.
extern "C" char __start_heapflare_test_recurse[], __stop_heapflare_test_recurse[];

int heapflare_unwind_readable(unsigned long address) {
  bool yes = address >= readable_from && address <= readable_to - 8;
  refused += !yes;
  return yes;
}

namespace {

// Not known to the compiler, which could otherwise unroll a loop whose rounds are to have the same
// return addresses.
const volatile int two = 2;

struct Walk {
  void* frames[64];
  int depth = 0;
};

// One frame per level: the empty asm keeps the calls from becoming jumps. In a section of its own,
// so that a test can tell which return addresses lie in it.
__attribute__((noinline, section("heapflare_test_recurse"))) void Recurse(int levels,
                                                                          void (*at_bottom)(void*),
                                                                          void* argument) {
  if (levels == 0) {
    at_bottom(argument);
  } else {
    Recurse(levels - 1, at_bottom, argument);
  }
  asm volatile("" ::: "memory");
}

void Backtrace(void* walk) {
  auto* w = static_cast<Walk*>(walk);
  w->depth = unw_backtrace(w->frames, 64);
}

Walk WalkFrom(int levels) {
  Walk walk;
  Recurse(levels, Backtrace, &walk);
  return walk;
}

int CountRecurse(const Walk& walk) {
  return static_cast<int>(std::count_if(walk.frames, walk.frames + walk.depth, [](void* frame) {
    return frame > __start_heapflare_test_recurse && frame < __stop_heapflare_test_recurse;
  }));
}

TEST(UnwindPort, FindsEveryFrame) {
  refused = 0;
  EXPECT_EQ(CountRecurse(WalkFrom(25)), 26);
  EXPECT_EQ(refused, 0);
}

void Step(void* walk) {
  auto* w = static_cast<Walk*>(walk);
  unw_context_t context;
  unw_cursor_t cursor;
  unw_getcontext(&context);
  ASSERT_EQ(unw_init_local(&cursor, &context), 0);
  while (w->depth < 64 && unw_step(&cursor) > 0) {
    unw_word_t ip;
    ASSERT_EQ(unw_get_reg(&cursor, UNW_REG_IP, &ip), 0);
    w->frames[w->depth++] = reinterpret_cast<void*>(ip);
  }
}

TEST(UnwindPort, AgreesWithSteppingFrameByFrame) {
  void (*const walkers[8])(void*) = {Step, Backtrace};
  Walk walks[8];
  for (int i = 0; i < two; ++i) Recurse(10, walkers[i], &walks[i]);
  const Walk &stepped = walks[0], &cached = walks[1];
  ASSERT_GT(stepped.depth, 12);
  // unw_backtrace starts in itself, one frame lower.
  ASSERT_EQ(stepped.depth + 1, cached.depth);
  EXPECT_TRUE(std::equal(stepped.frames, stepped.frames + stepped.depth, cached.frames + 1));
}

TEST(UnwindPort, LooksUpEachAddressOnce) {
  Walk walks[2];
  int lookups_before[2];
  for (int i = 0; i < two; ++i) {
    lookups_before[i] = lookups;
    walks[i] = WalkFrom(25);
  }
  EXPECT_EQ(lookups, lookups_before[1]);
  EXPECT_EQ(walks[0].depth, walks[1].depth);
}

TEST(UnwindPort, ForgetsWhenModulesChange) {
  for (int i = 0; i <= two; ++i) {
    if (i != 1) __atomic_fetch_add(&heapflare_unwind_generation, 1, __ATOMIC_RELEASE);
    int before = lookups;
    Walk walk = WalkFrom(25);
    EXPECT_EQ(lookups > before, i != 1);
    EXPECT_EQ(CountRecurse(walk), 26);
  }
}

// Wherever the readable stack ends, a walk is a prefix of the whole one, and says no exactly once.
TEST(UnwindPort, EndsAtTheFirstUnreadableWord) {
  for (bool known : {false, true}) {  // addresses that are new, addresses that are known
    int last_depth = -1;
    for (int cut = 0; cut < 60; ++cut) {
      auto cut_walk = [](void* argument) {
        auto* w = static_cast<Walk*>(argument);
        auto here = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
        readable_to = here + 16 * static_cast<unsigned long>(w->depth);
        refused = 0;
        w->depth = unw_backtrace(w->frames, 64);
        readable_to = ~0UL;
      };
      if (!known) __atomic_fetch_add(&heapflare_unwind_generation, 1, __ATOMIC_RELEASE);
      Walk walk;
      walk.depth = cut;
      Recurse(40, cut_walk, &walk);
      EXPECT_EQ(refused, 1) << cut;
      EXPECT_GE(walk.depth, last_depth);
      last_depth = walk.depth;
    }
    EXPECT_GT(last_depth, 3);
  }
  // An unreadable frame is not remembered as a bad address.
  EXPECT_EQ(CountRecurse(WalkFrom(40)), 41);
}

Walk walk_in_handler;

TEST(UnwindPort, CrossesASignalHandler) {
  for (int i = 0; i < two; ++i) {
    auto raise_signal = [](void*) {
      struct sigaction action = {};
      action.sa_handler = [](int) { Backtrace(&walk_in_handler); };
      sigaction(SIGUSR1, &action, nullptr);
      raise(SIGUSR1);
    };
    Recurse(12, raise_signal, nullptr);
    EXPECT_EQ(CountRecurse(walk_in_handler), 13);
  }
}

// Rows are shared by all threads and written without a lock. Threads that keep changing the
// generation make the others compute, write and replace rows all the time.
TEST(UnwindPort, IsRightWhileThreadsWriteTheSameRows) {
  std::atomic<bool> stop = false;
  std::atomic<int> wrong = 0, walks = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      while (!stop) {
        if (t == 0 && walks % 8 == 0) {
          __atomic_fetch_add(&heapflare_unwind_generation, 1, __ATOMIC_RELEASE);
        }
        wrong += CountRecurse(WalkFrom(5 + t)) != 6 + t;
        ++walks;
      }
    });
  }
  while (walks < 20000) std::this_thread::yield();
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(UnwindPort, WalksAThreadWithTheSmallestStack) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  const auto smallest = std::max<size_t>(sysconf(_SC_THREAD_STACK_MIN), 32 << 10);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, smallest), 0);
  pthread_t thread;
  Walk walk;
  auto run = [](void* argument) -> void* {
    Recurse(10, Backtrace, argument);
    return nullptr;
  };
  __atomic_fetch_add(&heapflare_unwind_generation, 1, __ATOMIC_RELEASE);
  ASSERT_EQ(pthread_create(&thread, &attributes, run, &walk), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
  EXPECT_EQ(CountRecurse(walk), 11);
}

}  // namespace
