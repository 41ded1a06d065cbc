// Makes the recorder's system calls fail, and nobody else's: those that are made by an instruction
// inside libheapflare.so. Exits like the program that it runs (128 + signal).
//
//   surroundings_inject --report=FILE [what] -- PROGRAM ARGS...
//     --call=NUMBER --error=ERRNO    this system call fails so; the kernel never sees it
//     --at=N | --from=N              the N-th such call of the recorder, or all from that one on
//     --jump=CLOCK:N:SECONDS         from the N-th look at any clock on, this clock is off by so much;
//                                    may be given more than once, a later one replaces an earlier
// FILE gets a line "NUMBER COUNT" for each system call that was watched (without --call all), and
// "injected N".
#include <elf.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#if !defined(__x86_64__)
int main() {
  fprintf(stderr, "surroundings_inject: knows the registers of x86_64 only\n");
  return 77;
}
#else

namespace {

struct Jump {
  long clock;
  unsigned long from;
  long seconds;
};

struct Options {
  const char* report = nullptr;
  long call = -1;  // all
  long error = 0;
  unsigned long first = 0;  // 0: no failures
  bool all_from_there = false;
  std::vector<Jump> jumps;
};

// [start, limit) of the recorder's code; empty: not loaded.
struct Range {
  unsigned long start = 0;
  unsigned long limit = 0;
};

[[noreturn]] void Fail(const char* what) {
  fprintf(stderr, "surroundings_inject: %s: %s\n", what, strerror(errno));
  exit(125);
}

Range FindRecorder(pid_t thread) {
  Range range;
  FILE* maps = fopen(("/proc/" + std::to_string(thread) + "/maps").c_str(), "re");
  if (maps == nullptr) return range;
  char line[4400];
  while (fgets(line, sizeof(line), maps) != nullptr) {
    char permissions[8];
    unsigned long start = 0;
    unsigned long limit = 0;
    if (strstr(line, "libheapflare.so") == nullptr ||
        sscanf(line, "%lx-%lx %7s", &start, &limit, permissions) != 3 || permissions[2] != 'x') {
      continue;
    }
    if (range.start == 0) range.start = start;
    range.limit = limit;
  }
  fclose(maps);
  return range;
}

class Tracer {
 public:
  explicit Tracer(const Options& options) : options_(options) {}

  // Until the program has ended; its exit status.
  int Run(pid_t program) {
    int exit_status = 125;
    for (;;) {
      int status = 0;
      const pid_t thread = waitpid(-1, &status, __WALL);
      if (thread < 0 && errno == EINTR) continue;
      if (thread < 0) break;
      if (!WIFSTOPPED(status)) {
        if (thread == program) {
          exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
        continue;
      }
      const int event = status >> 16;
      int signal = 0;
      if (event == PTRACE_EVENT_SECCOMP) {
        OnCall(thread);
      } else if (event == PTRACE_EVENT_EXEC) {
        ranges_.erase(thread);
      } else if (event == 0 && (started_[thread] || WSTOPSIG(status) != SIGSTOP)) {
        signal = WSTOPSIG(status);
      }
      started_[thread] = true;
      ptrace(PTRACE_CONT, thread, nullptr, signal);
    }
    return exit_status;
  }

  void Report() const {
    FILE* file = fopen(options_.report, "we");
    if (file == nullptr) Fail(options_.report);
    for (const auto& [call, count] : counts_) fprintf(file, "%ld %lu\n", call, count);
    fprintf(file, "injected %lu\n", injected_);
    fclose(file);
  }

 private:
  void OnCall(pid_t thread) {
    user_regs_struct registers = {};
    if (ptrace(PTRACE_GETREGS, thread, nullptr, &registers) != 0) return;
    Range& range = ranges_[thread];
    if (range.start == 0) range = FindRecorder(thread);
    if (registers.rip < range.start || registers.rip >= range.limit) return;
    const auto call = static_cast<long>(registers.orig_rax);
    const unsigned long count = ++counts_[call];
    long result = 0;
    if (call == SYS_clock_gettime && !options_.jumps.empty()) {
      if (!AnswerClock(thread, registers, count)) return;
    } else if (options_.first != 0 && call == options_.call &&
               (count == options_.first || (options_.all_from_there && count > options_.first))) {
      result = -options_.error;
    } else {
      return;
    }
    ++injected_;
    registers.orig_rax = ~0ULL;  // no such call: it is skipped
    registers.rax = static_cast<unsigned long>(result);
    ptrace(PTRACE_SETREGS, thread, nullptr, &registers);
  }

  // Writes the time that a clock shows after its jump. False: it has not jumped.
  bool AnswerClock(pid_t thread, const user_regs_struct& registers, unsigned long count) {
    const Jump* latest = nullptr;
    for (const Jump& jump : options_.jumps) {
      if (jump.clock == static_cast<long>(registers.rdi) && count >= jump.from) latest = &jump;
    }
    if (latest == nullptr) return false;
    timespec now = {};
    clock_gettime(static_cast<clockid_t>(latest->clock), &now);
    now.tv_sec += latest->seconds;
    if (now.tv_sec < 0) now.tv_sec = 0;
    const iovec from = {&now, sizeof(now)};
    const iovec to = {reinterpret_cast<void*>(registers.rsi), sizeof(now)};
    return process_vm_writev(thread, &from, 1, &to, 1, 0) == sizeof(now);
  }

  const Options& options_;
  std::map<pid_t, Range> ranges_;
  std::map<pid_t, bool> started_;
  std::map<long, unsigned long> counts_;
  unsigned long injected_ = 0;
};

// In the child: stops at the calls that are watched, then becomes the program.
[[noreturn]] void Become(const Options& options, char** program) {
  ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
  raise(SIGSTOP);
  sock_filter all[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE)};
  sock_filter one[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(options.call), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter = options.call < 0 ? sock_fprog{1, all} : sock_fprog{4, one};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) _exit(125);
  execvp(program[0], program);
  _exit(127);
}

// Where the program begins in argv; 0: wrong usage.
int ParseOptions(int argc, char** argv, Options* options) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const char* const value = argv[i] + argument.find('=') + 1;
    Jump jump = {};
    if (argument == "--") return options->report != nullptr && i + 1 < argc ? i + 1 : 0;
    if (argument.starts_with("--report=")) {
      options->report = value;
    } else if (argument.starts_with("--call=")) {
      options->call = strtol(value, nullptr, 10);
    } else if (argument.starts_with("--error=")) {
      options->error = strtol(value, nullptr, 10);
    } else if (argument.starts_with("--at=") || argument.starts_with("--from=")) {
      options->first = strtoul(value, nullptr, 10);
      options->all_from_there = argument[2] == 'f';
    } else if (argument.starts_with("--jump=") &&
               sscanf(value, "%ld:%lu:%ld", &jump.clock, &jump.from, &jump.seconds) == 3) {
      options->jumps.push_back(jump);
      options->call = SYS_clock_gettime;
    } else {
      break;
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  const int program = ParseOptions(argc, argv, &options);
  if (program == 0) {
    fprintf(stderr, "surroundings_inject: wrong usage; it is at the top of its source\n");
    return 125;
  }
  const pid_t child = fork();
  if (child < 0) Fail("fork");
  if (child == 0) Become(options, argv + program);
  int status = 0;
  if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) Fail("the program did not start");
  constexpr long kOptions = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
                            PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
  if (ptrace(PTRACE_SETOPTIONS, child, nullptr, kOptions) != 0) Fail("ptrace");
  Tracer tracer(options);
  ptrace(PTRACE_CONT, child, nullptr, nullptr);
  const int exit_status = tracer.Run(child);
  tracer.Report();
  return exit_status;
}
#endif
