#include "lib/recorder/leak_command.h"

#include <dlfcn.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>

#include <cstddef>

#include "lib/base/clone.h"
#include "lib/base/glibc_versions.h"
#include "lib/base/syscall.h"
#include "lib/recorder/recorder.h"

extern "C" char** environ;

namespace heapflare::recorder {
namespace {

constexpr int64_t kMillisecond = 1'000'000;

struct Child {
  const char* command;
  int input;
  char** environment;
};

constexpr size_t kChildStack = 64 << 10;
constexpr size_t kMostVariables = 4096;

void Become(void* argument) {
  const auto* const child = static_cast<const Child*>(argument);
  // The number 0 may be the list's own.
  if (child->input != 0) {
    base::Syscall(SYS_dup3, child->input, 0, 0);
  } else {
    base::Fcntl(0, F_SETFD, 0);
  }
  const char* const words[] = {child->command, "leak-report", nullptr};
  base::Syscall(SYS_execve, base::Arg(child->command), base::Arg(words),
                base::Arg(child->environment));
  base::Syscall(SYS_exit_group, 127);
}

// The environment without what would have the command checked in its turn.
char** EnvironmentForCommand(char** room) {
  size_t count = 0;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (text.substr(0, 11) == "LD_PRELOAD=" || text.substr(0, 10) == "HEAPFLARE_") continue;
    if (count + 1 == kMostVariables) break;
    room[count++] = *entry;
  }
  room[count] = nullptr;
  return room;
}

bool IsExecutable(const char* path) {
  constexpr long kExecute = 1;
  return base::Syscall(SYS_faccessat, AT_FDCWD, base::Arg(path), kExecute) == 0;
}

}  // namespace

bool FindCommand(base::Path* command) {
  *command = recorder.settings.leak_command;
  if (command->size() > 0) return IsExecutable(command->c_str());
  Dl_info info = {};
  if (dladdr(reinterpret_cast<const void*>(&FindCommand), &info) == 0 ||
      info.dli_fname == nullptr || info.dli_fname[0] != '/') {
    return false;
  }
  const std::string_view library = info.dli_fname;
  const std::string_view directory = library.substr(0, library.rfind('/'));
  for (const char* const relative : {"/heapflare", "/../bin/heapflare", "/../../bin/heapflare"}) {
    command->Clear();
    command->Add(directory).Add(relative);
    if (IsExecutable(command->c_str())) return true;
  }
  return false;
}

int RunCommand(const char* command, int input) {
  constexpr size_t kBytes = kChildStack + kMostVariables * sizeof(char*);
  void* const memory =
      base::Map(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  if (memory == nullptr) return -1;
  auto* const stack_top = static_cast<std::byte*>(memory) + kChildStack;
  Child child = {.command = command,
                 .input = input,
                 .environment = EnvironmentForCommand(reinterpret_cast<char**>(stack_top))};
  const uint64_t all = ~uint64_t{0};
  uint64_t before = 0;
  constexpr size_t kSetBytes = 8;
  base::Syscall(SYS_rt_sigprocmask, SIG_SETMASK, base::Arg(&all), base::Arg(&before), kSetBytes);
  // Its end sends no signal, and it is found by __WALL alone.
  const long process = base::CloneOnStack(
      {.flags = CLONE_VM | CLONE_VFORK, .stack_top = stack_top, .run = Become, .argument = &child});
  base::Syscall(SYS_rt_sigprocmask, SIG_SETMASK, base::Arg(&before), 0, kSetBytes);
  int code = -1;
  if (!base::Failed(process)) {
    constexpr long kAll = 0x40000000;  // __WALL
    constexpr long kNoWait = 1;
    const int64_t deadline = base::MonotonicNanoseconds() + 60'000 * kMillisecond;
    int status = 0;
    for (;;) {
      const long got = base::Syscall(SYS_wait4, process, base::Arg(&status), kAll | kNoWait, 0);
      if (got == process) {
        if ((status & 0x7f) == 0) code = status >> 8 & 0xff;
        break;
      }
      if (got < 0 && got != -4) break;
      if (base::MonotonicNanoseconds() > deadline) {
        base::Syscall(SYS_kill, process, 9);
        base::Syscall(SYS_wait4, process, base::Arg(&status), kAll, 0);
        break;
      }
      const timespec pause = {0, 2 * kMillisecond};
      base::Syscall(SYS_nanosleep, base::Arg(&pause));
    }
  }
  base::Unmap(memory, kBytes);
  return code;
}

}  // namespace heapflare::recorder
