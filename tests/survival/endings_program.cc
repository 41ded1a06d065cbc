// The ways in which a process with threads can end. See program.h.
#include <pthread.h>
#include <sys/syscall.h>

#include "tests/survival/program.h"

namespace survival {
namespace {

void StartThreads(int count, void* (*start)(void*)) {
  for (int i = 0; i < count; ++i) {
    pthread_t thread;
    CHECK(pthread_create(&thread, nullptr, start, nullptr) == 0);
    pthread_detach(thread);
  }
}

void* ChurnForEver(void*) {
  for (;;) Churn(10);
}

// Ends with its last own thread: libc then calls exit(0).
int MainLeaves(int, char**) {
  atexit([] {
    PrintBooks();
    printf("atexit\n");
  });
  StartThreads(1, [](void*) -> void* {
    // The leader is a zombie while this goes on.
    const double end = Now() + 0.1;
    while (Now() < end) Churn(10);
    return nullptr;
  });
  pthread_exit(nullptr);
}

int MainLeavesThenExit(int, char**) {
  StartThreads(1, [](void*) -> void* {
    const double end = Now() + 0.1;
    while (Now() < end) Churn(10);
    exit(7);
  });
  pthread_exit(nullptr);
}

// Threads that libc does not see end: the process ends with the last of them.
int RawExit(int, char**) {
  StartThreads(2, [](void*) -> void* {
    Churn(50);
    syscall(SYS_exit, 9);
    return nullptr;
  });
  Churn(50);
  syscall(SYS_exit, 9);
  return 0;
}

pthread_barrier_t together;

void* ExitTogether(void*) {
  Churn(10);
  pthread_barrier_wait(&together);
  exit(5);
}

int ExitFromThreads(int, char**) {
  pthread_barrier_init(&together, nullptr, 3);
  StartThreads(2, ChurnForEver);
  StartThreads(3, ExitTogether);
  for (;;) pause();
}

int ExitFromHandler(int, char**) {
  signal(SIGUSR1, [](int) { exit(6); });
  StartThreads(1, [](void*) -> void* {
    Churn(20);
    kill(getpid(), SIGUSR1);
    return nullptr;
  });
  // Where it is interrupted it holds no lock of libc's.
  for (;;) pause();
}

int AbortInThread(int, char**) {
  StartThreads(1, ChurnForEver);
  StartThreads(1, [](void*) -> void* {
    Churn(20);
    abort();
  });
  for (;;) Churn(10);
}

int QuickExit(int, char**) {
  at_quick_exit([] {
    Churn(10);
    PrintBooks();
  });
  StartThreads(1, ChurnForEver);
  Churn(20);
  quick_exit(4);
}

int UnderscoreExit(int, char**) {
  StartThreads(2, ChurnForEver);
  Churn(20);
  _exit(3);
}

int ReturnWhileThreadsAllocate(int, char**) {
  StartThreads(4, ChurnForEver);
  Churn(100);
  return 8;
}

int CrashInThread(int, char**) {
  StartThreads(1, ChurnForEver);
  StartThreads(1, [](void*) -> void* {
    Churn(20);
    *static_cast<volatile int*>(nullptr) = 1;
    return nullptr;
  });
  for (;;) Churn(10);
}

constexpr Scenario kScenarios[] = {
    {"main_leaves", MainLeaves},
    {"main_leaves_then_exit", MainLeavesThenExit},
    {"raw_exit", RawExit},
    {"exit_from_threads", ExitFromThreads},
    {"exit_from_handler", ExitFromHandler},
    {"abort_in_thread", AbortInThread},
    {"quick_exit", QuickExit},
    {"underscore_exit", UnderscoreExit},
    {"return_while_threads_allocate", ReturnWhileThreadsAllocate},
    {"crash_in_thread", CrashInThread},
};

}  // namespace
}  // namespace survival

int main(int argc, char** argv) { return survival::RunScenario(survival::kScenarios, argc, argv); }
