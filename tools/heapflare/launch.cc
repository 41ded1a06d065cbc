#include "tools/heapflare/launch.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace heapflare::tool {
namespace {

std::vector<char*> Pointers(const Arguments& words) {
  std::vector<char*> pointers;
  for (const std::string& word : words) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

// All that exec needs, made before the fork.
struct Image {
  explicit Image(const Program& program)
      : path(program.path.c_str()),
        words(Pointers(program.words)),
        environment(Pointers(program.environment)) {
    // For a script without a first line that names its interpreter, as shells do it.
    shell_words = words;
    shell_words[0] = const_cast<char*>(path);
    shell_words.insert(shell_words.begin(), const_cast<char*>("/bin/sh"));
  }
  // Returns the errno value.
  int Execute() const {
    execve(path, words.data(), environment.data());
    if (errno == ENOEXEC) execve("/bin/sh", shell_words.data(), environment.data());
    return errno;
  }

  const char* path;
  std::vector<char*> words;
  std::vector<char*> shell_words;
  std::vector<char*> environment;
};

// The child has our memory until it runs the program, so it only makes system calls.
pid_t Spawn(const Image& image, const sigset_t& mask, int* error) {
  const pid_t self = getpid();
  volatile int failure = 0;
  // Not posix_spawn, which cannot tie the child's life to ours; not fork, which copies page tables.
  const pid_t child = vfork();  // NOLINT(clang-analyzer-security.insecureAPI.vfork)
  if (child == 0) {
    // Killing `heapflare run` must not leave the program behind: whoever does means the program.
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);  // NOLINT(clang-analyzer-unix.Vfork)
    if (getppid() == self) {
      sigprocmask(SIG_SETMASK, &mask, nullptr);
      failure = image.Execute();
    }
    _exit(kNotFound);
  }
  *error = child < 0 ? errno : failure;
  return child;
}

// Signals of the terminal reach the whole process group, so the program has them already.
bool HasItAlready(const siginfo_t& signal, pid_t child) {
  return signal.si_code == SI_KERNEL && getpgid(child) == getpgrp();
}

int ExitStatus(int status) {
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

// With every signal blocked. Until the program ends.
int StandIn(pid_t child, const sigset_t& all) {
  for (;;) {
    siginfo_t signal = {};
    if (sigwaitinfo(&all, &signal) < 0) continue;
    if (signal.si_signo != SIGCHLD) {
      if (!HasItAlready(signal, child)) kill(child, signal.si_signo);
      continue;
    }
    int status = 0;
    if (waitpid(child, &status, WNOHANG | WUNTRACED) != child) continue;
    if (!WIFSTOPPED(status)) return ExitStatus(status);
    // Stopped from the terminal: stop with it, or the shell would wait. Not for SIGSTOP, which
    // somebody sent to the program alone and will take back from it alone.
    if (WSTOPSIG(status) == SIGSTOP) continue;
    raise(SIGSTOP);
    kill(child, SIGCONT);
  }
}

bool ChildrenAreIgnored() {
  struct sigaction action = {};
  return sigaction(SIGCHLD, nullptr, &action) == 0 &&
         (action.sa_handler == SIG_IGN || (action.sa_flags & SA_NOCLDWAIT) != 0);
}

}  // namespace

int Launch(const Program& program, Stand stand, int* error) {
  const Image image(program);
  // With SIGCHLD ignored, which the program is to inherit, nobody could see it end.
  if (stand == Stand::kAside || ChildrenAreIgnored()) {
    *error = image.Execute();
    return kNotFound;
  }
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  const pid_t child = Spawn(image, before, error);
  if (*error != 0) {
    if (child > 0) waitpid(child, nullptr, 0);
    return kNotFound;
  }
  return StandIn(child, all);
}

}  // namespace heapflare::tool
