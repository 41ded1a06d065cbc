#include "lib/base/say.h"

#include <poll.h>

#include <atomic>

#include "lib/base/held_signals.h"
#include "lib/base/syscall.h"
#include "lib/base/text.h"

namespace heapflare::base {
namespace {

constinit FileStatus stderr_at_start = {};
constinit std::atomic<int> thread_with_own_table = 0;

bool SameFile(const FileStatus& a, const FileStatus& b) {
  return a.inode == b.inode && a.device_major == b.device_major && a.device_minor == b.device_minor;
}

// A duplicate of the process's descriptor is as good as it; opening it anew needs permission, and
// cannot be done with a socket.
int OpenStderr() {
  constexpr long kPidFdOpen = 434;   // kernel 5.3
  constexpr long kPidFdGetFd = 438;  // kernel 5.6
  const int process = static_cast<int>(Syscall(kPidFdOpen, ProcessId(), 0));
  if (process >= 0) {
    const int fd = static_cast<int>(Syscall(kPidFdGetFd, process, 2, 0));
    Close(process);
    if (fd >= 0) return fd;
  }
  // With an offset of its own, so it must be told to append.
  return Open("/proc/self/fd/2", O_WRONLY | O_APPEND | O_NOCTTY | O_NONBLOCK);
}

bool IsStillStderr(int fd) {
  FileStatus now = {};
  if (stderr_at_start.inode == 0 || Status(fd, &now) != 0) return true;
  if (SameFile(now, stderr_at_start) || S_ISCHR(now.mode)) return true;
  const long flags = Fcntl(fd, F_GETFL, 0);
  return S_ISREG(now.mode) && flags >= 0 && (flags & O_APPEND) != 0;
}

// A pipe that takes anything takes a page, which is more than a line.
bool TakesLine(int fd) {
  pollfd one = {.fd = fd, .events = POLLOUT, .revents = 0};
  const timespec now = {};
  return Syscall(SYS_ppoll, Arg(&one), 1, Arg(&now), 0, 0) == 1;
}

void WriteLine(int fd, std::string_view line) {
  if (!IsStillStderr(fd) || !TakesLine(fd)) return;
  const HeldSignals held;
  held.Take(Write(fd, line.data(), line.size()));
}

}  // namespace

void RememberStderr() {
  if (Status(2, &stderr_at_start) != 0) stderr_at_start = {};
}

void SayThroughProcess() { thread_with_own_table.store(ThreadId(), std::memory_order_relaxed); }

void Say(std::string_view message) {
  Text<1024> line("heapflare: ");
  for (const char c : message) {
    line.Add(static_cast<unsigned char>(c) < ' ' || c == '\x7f' ? '?' : c);
  }
  if (line.truncated()) line.ShortenTo(line.size() - 1);
  line.Add('\n');

  if (ThreadId() != thread_with_own_table.load(std::memory_order_relaxed)) {
    WriteLine(2, line.view());
    return;
  }
  const int fd = OpenStderr();
  if (fd < 0) return;
  WriteLine(fd, line.view());
  Close(fd);
}

}  // namespace heapflare::base
