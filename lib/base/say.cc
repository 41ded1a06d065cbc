#include "lib/base/say.h"

#include <signal.h>

#include "lib/base/syscall.h"
#include "lib/base/text.h"

namespace heapflare::base {
namespace {

constexpr uint64_t Bit(int signal) { return uint64_t{1} << (signal - 1); }
constexpr size_t kSetBytes = 8;  // the kernel's sigset_t

}  // namespace

void Say(std::string_view message) {
  Text<1024> line("heapflare: ");
  line.Add(message);
  if (line.truncated()) line.ShortenTo(line.size() - 1);
  line.Add('\n');

  // Both signals go to the writing thread: blocked here they stay pending for it, and are taken off
  // again unless they were pending before.
  const uint64_t raised = Bit(SIGPIPE) | Bit(SIGXFSZ);
  uint64_t before = 0;
  uint64_t pending_before = 0;
  Syscall(SYS_rt_sigprocmask, SIG_BLOCK, Arg(&raised), Arg(&before), kSetBytes);
  Syscall(SYS_rt_sigpending, Arg(&pending_before), kSetBytes);
  long written = Write(2, line.c_str(), line.size());
  constexpr long kNoDescriptor = -9;  // -EBADF
  if (written == kNoDescriptor) {
    // Opened anew, so it must be told to append.
    const int fd = Open("/proc/self/fd/2", O_WRONLY | O_APPEND | O_NOCTTY | O_NONBLOCK);
    if (fd >= 0) {
      written = Write(fd, line.c_str(), line.size());
      Close(fd);
    }
  }
  const uint64_t ours = raised & ~pending_before;
  if (written < 0 && ours != 0) {
    const timespec now = {};
    Syscall(SYS_rt_sigtimedwait, Arg(&ours), 0, Arg(&now), kSetBytes);
  }
  Syscall(SYS_rt_sigprocmask, SIG_SETMASK, Arg(&before), 0, kSetBytes);
}

}  // namespace heapflare::base
