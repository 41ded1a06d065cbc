// Signal handlers that allocate, ten thousand times a second. See program.h.
//
// SURVIVAL_REENTRANT=1: the allocator may be interrupted anywhere (reentrant_malloc.cc), and is. Else a
// handler allocates only while the interrupted code is not in the allocator, which would deadlock without
// the recorder too.
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "tests/survival/program.h"

namespace survival {
namespace {

bool reentrant = false;
thread_local volatile sig_atomic_t in_allocator = 0;
std::atomic<int64_t> handled = 0;

// Not Allocate: in the profile the handler's blocks must be told from the program's.
[[gnu::noinline]] void AllocateInHandler() {
  void* volatile block = malloc(kBlock);
  free(block);
  ++books.in_handlers;
}

void Handle(int) {
  const int saved = errno;
  ++handled;
  if (reentrant || in_allocator == 0) AllocateInHandler();
  errno = saved;
}

void HandleSignal(void (*handler)(int), int flags) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART | flags;
  CHECK(sigaction(SIGALRM, &action, nullptr) == 0);
}

class Timer {
 public:
  explicit Timer(long nanoseconds) {
    sigevent event = {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGALRM;
    event._sigev_un._tid = static_cast<int>(syscall(SYS_gettid));
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0);
    const itimerspec period = {{0, nanoseconds}, {0, nanoseconds}};
    CHECK(timer_settime(timer_, 0, &period, nullptr) == 0);
  }
  ~Timer() { timer_delete(timer_); }

 private:
  timer_t timer_;
};

class InAllocator {
 public:
  InAllocator() { in_allocator = in_allocator + 1; }
  ~InAllocator() { in_allocator = in_allocator - 1; }
};

void Work(double seconds, const char* library) {
  const double end = Now() + seconds;
  while (Now() < end) {
    {
      const InAllocator guard;
      Churn(20);
      void* const handle = dlopen(library, RTLD_NOW);
      CHECK(handle != nullptr);
      dlclose(handle);
      const pid_t child = fork();
      CHECK(child >= 0);
      if (child == 0) {
        Churn(2);
        _exit(16);
      }
      int status = 0;
      CHECK(Await(30, [&] { return waitpid(child, &status, WNOHANG) == child; }));
      CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 16);
    }
    // Time for handlers that may not interrupt the allocator.
    Spin(20'000);
  }
}

int Storm(int argc, char** argv) {
  reentrant = getenv("SURVIVAL_REENTRANT") != nullptr;
  const double seconds = Number(argc, argv, 1, 500) * 1e-3;
  HandleSignal(Handle, 0);
  {
    // A second stream of signals falls on any thread.
    if (reentrant) {
      const itimerval period = {{0, 300}, {0, 300}};
      setitimer(ITIMER_REAL, &period, nullptr);
    }
    const Timer timer(100'000);
    pthread_t thread;
    const InAllocator* const guard = new InAllocator;
    CHECK(pthread_create(
              &thread, nullptr,
              [](void*) -> void* {
                const Timer own(100'000);
                const InAllocator guarded;
                Churn(500);
                return nullptr;
              },
              nullptr) == 0);
    delete guard;
    Work(seconds, argv[0]);
    pthread_join(thread, nullptr);
    const itimerval none = {};
    setitimer(ITIMER_REAL, &none, nullptr);
  }
  CHECK(handled > 100);
  printf("handlers allocated\n");
  return End();
}

// --- On a stack of the handler's own ---

int AlternateStack(int argc, char** argv) {
  reentrant = getenv("SURVIVAL_REENTRANT") != nullptr;
  const int kilobytes = Number(argc, argv, 0, 64);
  const auto bytes = static_cast<size_t>(kilobytes) << 10;
  // Below the stack lies memory that is somebody else's: no guard page tells where the stack ends.
  constexpr size_t kBelow = 64 << 10;
  char* const memory = static_cast<char*>(
      mmap(nullptr, kBelow + bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  CHECK(memory != MAP_FAILED);
  memset(memory, 0x77, kBelow);
  stack_t stack = {};
  stack.ss_sp = memory + kBelow;
  stack.ss_size = bytes;
  CHECK(sigaltstack(&stack, nullptr) == 0);
  HandleSignal(Handle, SA_ONSTACK);
  {
    const Timer timer(100'000);
    const double end = Now() + 30;
    while (handled < 500 && Now() < end) {
      {
        const InAllocator guard;
        Churn(5);
      }
      Spin(5000);
    }
  }
  for (size_t i = 0; i < kBelow; ++i) CHECK(memory[i] == 0x77);
  CHECK(handled >= 500);
  printf("memory below the stack is untouched\n");
  return End();
}

// --- A handler that does not return ---

sigjmp_buf out_of_work;
volatile sig_atomic_t may_jump = 0;

void Jump(int) {
  if (may_jump != 0) siglongjmp(out_of_work, 1);
}

int JumpOutOfHandler(int, char**) {
  HandleSignal(Jump, 0);
  volatile int jumps = 0;
  {
    const Timer timer(300'000);
    const double end = Now() + 30;
    while (jumps < 500 && Now() < end) {
      if (sigsetjmp(out_of_work, 1) == 0) {
        may_jump = 1;
        for (;;) {
          void* volatile block = malloc(kBlock);
          free(block);
        }
      }
      may_jump = 0;
      jumps = jumps + 1;
    }
  }
  CHECK(jumps == 500);
  // From here on the books must be right again, and the stacks whole.
  for (int i = 0; i < 100; ++i) Allocate();
  printf("jumped out\n");
  return End();
}

constexpr Scenario kScenarios[] = {
    {"storm", Storm},
    {"alternate_stack", AlternateStack},
    {"jump_out_of_handler", JumpOutOfHandler},
};

}  // namespace
}  // namespace survival

int main(int argc, char** argv) { return survival::RunScenario(survival::kScenarios, argc, argv); }
