// Processes made in every way, from threads, while others allocate. See program.h.
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <string>

#include "tests/survival/program.h"

extern "C" char** environ;

namespace survival {
namespace {

constexpr double kDeadline = 30;

// Reaps the child; a child that hangs is a failure here, not in the driver.
int Reap(pid_t child) {
  int status = 0;
  CHECK(Await(kDeadline, [&] { return waitpid(child, &status, WNOHANG) == child; }));
  return status;
}

void ExpectExit(pid_t child, int code) {
  const int status = Reap(child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == code);
}

std::atomic<bool> stop = false;

void* ChurnUntilStopped(void*) {
  while (!stop) Churn(10);
  return nullptr;
}

class ChurningThreads {
 public:
  explicit ChurningThreads(int count) : count_(count) {
    for (int i = 0; i < count; ++i) {
      CHECK(pthread_create(&threads_[i], nullptr, ChurnUntilStopped, nullptr) == 0);
    }
  }
  ~ChurningThreads() {
    stop = true;
    for (int i = 0; i < count_; ++i) pthread_join(threads_[i], nullptr);
  }

 private:
  int count_;
  pthread_t threads_[8];
};

// --- fork ---

void* ForkManyTimes(void* count) {
  void* inherited = Allocate();
  for (intptr_t i = 0; i < reinterpret_cast<intptr_t>(count); ++i) {
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      Free(inherited);
      Churn(3);
      _exit(static_cast<int>(i % 100));
    }
    ExpectExit(child, static_cast<int>(i % 100));
    Churn(1);
  }
  Free(inherited);
  return nullptr;
}

int ForkStorm(int argc, char** argv) {
  const intptr_t forks = Number(argc, argv, 0, 200);
  {
    const ChurningThreads others(2);
    pthread_t forker;
    CHECK(pthread_create(&forker, nullptr, ForkManyTimes, reinterpret_cast<void*>(forks)) == 0);
    pthread_join(forker, nullptr);
  }
  printf("forked %d\n", static_cast<int>(forks));
  return End();
}

int BoxesIn(const char* directory) {
  int count = 0;
  DIR* const listing = opendir(directory);
  while (const dirent* entry = listing == nullptr ? nullptr : readdir(listing)) {
    count += strstr(entry->d_name, ".box") != nullptr ? 1 : 0;
  }
  if (listing != nullptr) closedir(listing);
  return count;
}

// Children that are killed leave boxes; the parent, which lives, removes all but the youngest.
int ChildrenAreKilled(int argc, char** argv) {
  const int children = Number(argc, argv, 0, 40);
  for (int i = 0; i < children; ++i) {
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      Churn(300);
      kill(getpid(), SIGKILL);
    }
    CHECK(WIFSIGNALED(Reap(child)));
  }
  const char* const boxes = getenv("HEAPFLARE_BOX_DIR");
  constexpr int kKept = 16;
  CHECK(boxes == nullptr || Await(kDeadline, [&] { return BoxesIn(boxes) <= kKept + 1; }));
  printf("killed %d\n", children);
  return End();
}

// A child of a child of a child, each with books of its own; every other one ends by exit.
void Descend(int generation) {
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child != 0) {
    ExpectExit(child, generation);
    return;
  }
  StartBooksOver();
  void* const kept = Allocate();
  Churn(20);
  if (generation < 5) Descend(generation + 1);
  Free(kept);
  CHECK(books.allocated == books.freed);
  if (generation % 2 == 0) exit(generation);
  _exit(generation);
}

int Grandchildren(int, char**) {
  const ChurningThreads others(2);
  Descend(1);
  printf("descended\n");
  return 0;
}

// A child that lives on, with a thread of its own; its books are printed, and it is killed.
int ChildLives(int, char**) {
  for (int i = 0; i < 10; ++i) Allocate();
  void* const inherited = Allocate();
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    StartBooksOver();
    free(inherited);
    pthread_t thread;
    CHECK(pthread_create(
              &thread, nullptr, [](void*) { return Allocate(); }, nullptr) == 0);
    pthread_join(thread, nullptr);
    for (int i = 0; i < 99; ++i) Allocate();
    Churn(1000);
    PrintBooks();
    kill(getpid(), SIGKILL);
  }
  CHECK(WIFSIGNALED(Reap(child)));
  Free(inherited);
  Churn(1000);
  return End();
}

// Not in the books.
void AllocateAndFree() {
  void* volatile block = malloc(kBlock);
  free(block);
}

// --- exec, spawn, and what libc makes of them ---

int ExecAndSpawn(int argc, char** argv) {
  const int times = Number(argc, argv, 0, 10);
  const ChurningThreads others(2);
  for (int i = 0; i < times; ++i) {
    char* arguments[] = {const_cast<char*>("sh"), const_cast<char*>("-c"),
                         const_cast<char*>("exit 11"), nullptr};
    void* const block = Allocate();
    pid_t child = vfork();
    CHECK(child >= 0);
    if (child == 0) {
      // Not allowed, and done nevertheless: the memory is the parent's.
      AllocateAndFree();
      execve("/bin/sh", arguments, environ);
      _exit(127);
    }
    ExpectExit(child, 11);
    Free(block);

    CHECK(posix_spawn(&child, "/bin/sh", nullptr, nullptr, arguments, environ) == 0);
    ExpectExit(child, 11);

    const int status = system("exit 12");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 12);

    FILE* const pipe = popen("echo from the shell", "r");
    CHECK(pipe != nullptr);
    char line[64] = {};
    CHECK(fgets(line, sizeof(line), pipe) != nullptr && strcmp(line, "from the shell\n") == 0);
    CHECK(pclose(pipe) == 0);
  }
  printf("started %d\n", 4 * times);
  return 0;
}

// Replaces itself, from another thread than the first; the successor has the same process id.
int ExecSelf(int, char**) {
  pthread_t thread;
  Churn(50);
  CHECK(pthread_create(
            &thread, nullptr,
            [](void*) -> void* {
              Churn(50);
              char* arguments[] = {const_cast<char*>("self"), const_cast<char*>("successor"),
                                   nullptr};
              execve("/proc/self/exe", arguments, environ);
              _exit(127);
            },
            nullptr) == 0);
  for (;;) Churn(10);
}

int Successor(int, char**) {
  for (int i = 0; i < 100; ++i) Allocate();
  return End();
}

// The daemon writes its books into a file, since nobody holds its stdout, and kills itself.
int Daemon(int, char** argv) {
  const std::string done = std::string(argv[0]) + ".new";
  Churn(20);
  CHECK(daemon(0, 0) == 0);
  StartBooksOver();
  for (int i = 0; i < 100; ++i) Allocate();
  const int file = open(done.c_str(), O_WRONLY | O_CREAT, 0600);
  CHECK(file == 3);  // the lowest number that is free
  dup2(file, 1);
  PrintBooks();
  CHECK(rename(done.c_str(), argv[0]) == 0);
  kill(getpid(), SIGKILL);
  return 0;
}

// --- clone, behind libc's back ---

int AllocateInClone(void* inherited) {
  for (int i = 0; i < 200; ++i) AllocateAndFree();
  free(inherited);
  return 13;
}

int RawClone(int argc, char** argv) {
  const int times = Number(argc, argv, 0, 20);
  constexpr size_t kStack = 64 << 10;
  void* const stack =
      mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  CHECK(stack != MAP_FAILED);
  for (int i = 0; i < times; ++i) {
    void* const inherited = Allocate();
    // Shares our memory, and its box; the parent waits.
    const pid_t sharing = clone(AllocateInClone, static_cast<char*>(stack) + kStack,
                                CLONE_VM | CLONE_VFORK | SIGCHLD, nullptr);
    ExpectExit(sharing, 13);
    // A copy of our memory; the box is shared even so.
    const pid_t copied = static_cast<pid_t>(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
    CHECK(copied >= 0);
    if (copied == 0) {
      AllocateInClone(inherited);
      // As in a child of fork: its exit may not close the parent's box.
      if (i % 2 == 0) exit(14);
      _exit(14);
    }
    ExpectExit(copied, 14);
    if (i % 2 == 0) Free(inherited);
  }
  printf("cloned %d\n", 2 * times);
  return End();
}

// --- wait, signals ---

std::atomic<int> children_ended = 0;

int WaitForAny(int argc, char** argv) {
  const int times = Number(argc, argv, 0, 20);
  struct sigaction action = {};
  action.sa_handler = [](int) {
    const int saved = errno;
    while (waitpid(-1, nullptr, WNOHANG) > 0) ++children_ended;
    errno = saved;
  };
  CHECK(sigaction(SIGCHLD, &action, nullptr) == 0);
  for (int i = 0; i < times; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      Churn(2);
      _exit(0);
    }
    CHECK(Await(kDeadline, [&] { return children_ended == i + 1; }));
  }
  signal(SIGCHLD, SIG_DFL);
  // Nobody else is a child of ours, whichever way one asks.
  for (const int options : {0, static_cast<int>(__WALL), static_cast<int>(__WCLONE)}) {
    errno = 0;
    CHECK(waitpid(-1, nullptr, options | WNOHANG) == -1 && errno == ECHILD);
  }
  CHECK(wait(nullptr) == -1 && errno == ECHILD);
  printf("children ended: %d\n", children_ended.load());
  return End();
}

// Neither the kernel's nor libc's own.
bool IsOurs(int signal) {
  return signal != SIGKILL && signal != SIGSTOP && (signal < 32 || signal >= SIGRTMIN);
}

// With everything blocked a signal to the process waits for whoever takes it, and nobody else does.
int SignalsBlocked(int, char**) {
  sigset_t all;
  sigfillset(&all);
  CHECK(sigprocmask(SIG_SETMASK, &all, nullptr) == 0);
  Churn(50);
  usleep(50'000);  // the recorder's thread is at work by now
  for (int signal = 1; signal < SIGRTMAX; ++signal) {
    if (!IsOurs(signal)) continue;
    const pid_t child = fork();
    if (child == 0) {
      kill(getppid(), signal);
      _exit(0);
    }
    Reap(child);
    sigset_t wanted;
    sigemptyset(&wanted);
    sigaddset(&wanted, signal);
    sigset_t pending;
    CHECK(sigpending(&pending) == 0 && sigismember(&pending, signal) == 1);
    const timespec none = {};
    siginfo_t info;
    CHECK(sigtimedwait(&wanted, &info, &none) == signal);
    if (signal != SIGCHLD) CHECK(info.si_pid == child);
    Churn(1);
  }
  printf("all signals arrived\n");
  return End();
}

int SignalsIgnored(int, char**) {
  for (int number = 1; number < SIGRTMAX; ++number) {
    if (IsOurs(number)) signal(number, SIG_IGN);
  }
  Churn(50);
  for (int number = 1; number < SIGRTMAX; ++number) {
    if (IsOurs(number)) kill(getpid(), number);
  }
  Churn(50);
  printf("still here\n");
  return End();
}

// --- ptrace ---

int Traced(int, char**) {
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    CHECK(ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) == 0);
    Churn(20);
    raise(SIGSTOP);
    Churn(200);
    _exit(15);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && WIFSTOPPED(status));
  int stops = 0;
  // Every system call, ours included, is a stop.
  while (!WIFEXITED(status)) {
    CHECK(ptrace(PTRACE_SYSCALL, child, nullptr, nullptr) == 0);
    CHECK(waitpid(child, &status, __WALL) == child);
    ++stops;
  }
  CHECK(WEXITSTATUS(status) == 15 && stops > 0);
  printf("traced to its end\n");
  return End();
}

constexpr Scenario kScenarios[] = {
    {"fork_storm", ForkStorm},
    {"grandchildren", Grandchildren},
    {"children_are_killed", ChildrenAreKilled},
    {"child_lives", ChildLives},
    {"exec_and_spawn", ExecAndSpawn},
    {"exec_self", ExecSelf},
    {"successor", Successor},
    {"daemon", Daemon},
    {"raw_clone", RawClone},
    {"wait_for_any", WaitForAny},
    {"signals_blocked", SignalsBlocked},
    {"signals_ignored", SignalsIgnored},
    {"traced", Traced},
};

}  // namespace
}  // namespace survival

int main(int argc, char** argv) { return survival::RunScenario(survival::kScenarios, argc, argv); }
