// Threads that come and go, end early, or leave frames behind, while they allocate. See program.h.
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <limits>
#include <new>
#include <stdexcept>

#include "tests/survival/program.h"

namespace survival {
namespace {

using Start = void* (*)(void*);

pthread_t Spawn(Start start, void* argument = nullptr, size_t stack = 0) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  if (stack != 0) CHECK(pthread_attr_setstacksize(&attributes, stack) == 0);
  pthread_t thread;
  CHECK(pthread_create(&thread, &attributes, start, argument) == 0);
  pthread_attr_destroy(&attributes);
  return thread;
}

void* Join(pthread_t thread) {
  void* result = nullptr;
  CHECK(pthread_join(thread, &result) == 0);
  return result;
}

// --- Created and joined; a block of each thread outlives it ---

int CreateAndJoin(int argc, char** argv) {
  const int threads = Number(argc, argv, 0, 500);
  for (int i = 0; i < threads; ++i) {
    void* const block = Join(Spawn([](void*) {
      Churn(20);
      return Allocate();
    }));
    if (i % 2 == 0) Free(block);
  }
  printf("joined %d\n", threads);
  return End();
}

// --- Destructors ---

pthread_key_t key;
std::atomic<int> key_destructors = 0;
std::atomic<int> object_destructors = 0;

struct OnThreadEnd {
  void* block = Allocate();
  ~OnThreadEnd() {
    Free(block);
    Churn(10);
    ++object_destructors;
  }
};
thread_local OnThreadEnd on_thread_end;

// Sets itself again until libc gives up (PTHREAD_DESTRUCTOR_ITERATIONS): so it also runs last of all.
void KeyDestructor(void* block) {
  Free(block);
  Churn(10);
  if (++key_destructors % 4 != 0) pthread_setspecific(key, Allocate());
}

struct AtProcessEnd {
  ~AtProcessEnd() { Churn(10); }
} at_process_end;

int Destructors(int argc, char** argv) {
  const int threads = Number(argc, argv, 0, 100);
  CHECK(pthread_key_create(&key, KeyDestructor) == 0);
  atexit([] { Churn(10); });
  for (int i = 0; i < threads; ++i) {
    Join(Spawn([](void*) -> void* {
      pthread_setspecific(key, Allocate());
      return on_thread_end.block == nullptr ? nullptr : &on_thread_end;
    }));
  }
  printf("destructors: %d of keys, %d of objects\n", key_destructors.load(),
         object_destructors.load());
  return End();
}

// --- The smallest stacks ---

// So deep that little more than what malloc itself needs is left of the stack.
[[gnu::noinline]] void Descend(char* low_end) {
  volatile char frame[256];
  frame[0] = 1;
  if (reinterpret_cast<char*>(const_cast<char*>(frame)) - low_end > 3 * 1024) Descend(low_end);
  Churn(1, 1);
  frame[255] = 1;
}

void* OnSmallStack(void* fork_too) {
  pthread_attr_t attributes;
  CHECK(pthread_getattr_np(pthread_self(), &attributes) == 0);
  void* low = nullptr;
  size_t bytes = 0;
  pthread_attr_getstack(&attributes, &low, &bytes);
  pthread_attr_destroy(&attributes);
  if (fork_too != nullptr) {
    // The child's first sample, which opens its box, falls on this stack.
    const pid_t child = fork();
    if (child == 0) {
      Churn(300, 8);
      _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
  }
  Churn(20);
  Descend(static_cast<char*>(low));
  return nullptr;
}

int SmallStacks(int argc, char** argv) {
  const int threads = Number(argc, argv, 0, 50);
  for (int i = 0; i < threads; ++i) {
    Join(Spawn(OnSmallStack, i % 10 == 0 ? &key : nullptr, PTHREAD_STACK_MIN));
  }
  printf("threads with %d bytes of stack: %d\n", static_cast<int>(PTHREAD_STACK_MIN), threads);
  return End();
}

// --- Cancellation ---

std::atomic<bool> started = false;

void* AllocateUntilCancelled(void* asynchronous) {
  if (asynchronous != nullptr) {
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, nullptr);
    started = true;
    for (;;) {
      void* volatile block = malloc(kBlock);
      free(block);
    }
  }
  void* kept = Allocate();
  pthread_cleanup_push(Free, kept);
  started = true;
  for (;;) {
    Churn(1);
    pthread_testcancel();
  }
  pthread_cleanup_pop(1);
  return nullptr;
}

int Cancel(bool asynchronous, int threads) {
  for (int i = 0; i < threads; ++i) {
    started = false;
    const pthread_t thread = Spawn(AllocateUntilCancelled, asynchronous ? &key : nullptr);
    while (!started) sched_yield();
    // A moment later each time, so that it falls anywhere.
    Spin(i * 97 % 5000);
    CHECK(pthread_cancel(thread) == 0);
    CHECK(Join(thread) == PTHREAD_CANCELED);
    Churn(2);
  }
  printf("cancelled %d\n", threads);
  return End();
}

int CancelDeferred(int argc, char** argv) { return Cancel(false, Number(argc, argv, 0, 100)); }
// Needs an allocator that may be interrupted anywhere for good.
int CancelAsynchronous(int argc, char** argv) { return Cancel(true, Number(argc, argv, 0, 100)); }

// --- Frames that are left without a return ---

thread_local jmp_buf out_of_sort;
thread_local int comparisons = 0;

int CompareAndLeave(const void* a, const void* b) {
  Churn(1, 1);
  if (++comparisons % 7 == 0) longjmp(out_of_sort, 1);
  return *static_cast<const int*>(a) - *static_cast<const int*>(b);
}

void JumpOutOfSort() {
  int numbers[64];
  for (int i = 0; i < 64; ++i) numbers[i] = i * 37 % 64;
  if (setjmp(out_of_sort) == 0) {
    qsort(numbers, 64, sizeof(int), CompareAndLeave);
    CHECK(!"qsort returned");
  }
}

[[gnu::noinline]] void ThrowBelow(int depth) {
  void* const block = Allocate();
  if (depth == 0) {
    Free(block);
    throw std::runtime_error("thrown below");
  }
  try {
    ThrowBelow(depth - 1);
  } catch (...) {
    Free(block);
    throw;
  }
}

// Whatever happens to the block, the compiler may not leave its allocation out.
void Keep(const char* block) { asm volatile("" : : "r"(block) : "memory"); }

// mimalloc, compiled as C, ends the program instead.
bool throws_nothing = false;

// A variable, so that the compiler does not complain.
volatile size_t too_much = static_cast<size_t>(std::numeric_limits<ptrdiff_t>::max()) - 4096;

// The exception passes the hook itself.
void FailToAllocate() {
  if (throws_nothing) return;
  bool caught = false;
  try {
    Keep(new char[too_much]);
  } catch (const std::bad_alloc&) {
    caught = true;
  }
  CHECK(caught);
}

struct Refused {};

void* Leave(void* rounds) {
  for (intptr_t i = 0; i < reinterpret_cast<intptr_t>(rounds); ++i) {
    JumpOutOfSort();
    bool caught = false;
    try {
      ThrowBelow(10);
    } catch (const std::runtime_error&) {
      caught = true;
    }
    CHECK(caught);
    FailToAllocate();
  }
  return nullptr;
}

int Jumps(int argc, char** argv) {
  const intptr_t rounds = Number(argc, argv, 0, 200);
  throws_nothing = dlsym(RTLD_DEFAULT, "mi_malloc") != nullptr;
  void* const argument = reinterpret_cast<void*>(rounds);
  pthread_t threads[3];
  for (pthread_t& thread : threads) thread = Spawn(Leave, argument);
  Leave(argument);
  for (const pthread_t thread : threads) Join(thread);
  // The exception of a new_handler passes the hook as well.
  if (!throws_nothing) {
    std::set_new_handler([] { throw Refused(); });
    bool refused = false;
    try {
      Keep(new char[too_much]);
    } catch (const Refused&) {
      refused = true;
    } catch (const std::bad_alloc&) {
      // tcmalloc refuses such a size without asking the handler.
      refused = true;
    }
    CHECK(refused);
  }
  printf("left %d times\n", static_cast<int>(rounds));
  return End();
}

constexpr Scenario kScenarios[] = {
    {"create_and_join", CreateAndJoin},
    {"destructors", Destructors},
    {"small_stacks", SmallStacks},
    {"cancel_deferred", CancelDeferred},
    {"cancel_asynchronous", CancelAsynchronous},
    {"jumps", Jumps},
};

}  // namespace
}  // namespace survival

int main(int argc, char** argv) { return survival::RunScenario(survival::kScenarios, argc, argv); }
