#include "lib/base/held_signals.h"

#include <errno.h>
#include <signal.h>

#include "lib/base/syscall.h"

namespace heapflare::base {
namespace {

constexpr uint64_t Bit(int signal) { return uint64_t{1} << (signal - 1); }
constexpr uint64_t kHeld = Bit(SIGPIPE) | Bit(SIGXFSZ);
constexpr size_t kSetBytes = 8;  // the kernel's sigset_t

}  // namespace

HeldSignals::HeldSignals() {
  const uint64_t held = kHeld;
  Syscall(SYS_rt_sigprocmask, SIG_BLOCK, Arg(&held), Arg(&mask_before_), kSetBytes);
  Syscall(SYS_rt_sigpending, Arg(&pending_before_), kSetBytes);
}

HeldSignals::~HeldSignals() {
  Syscall(SYS_rt_sigprocmask, SIG_SETMASK, Arg(&mask_before_), 0, kSetBytes);
}

long HeldSignals::Take(long result) const {
  uint64_t raised = result == -EPIPE ? Bit(SIGPIPE) : result == -EFBIG ? Bit(SIGXFSZ) : 0;
  raised &= ~pending_before_;
  if (raised != 0) {
    const timespec now = {};
    Syscall(SYS_rt_sigtimedwait, Arg(&raised), 0, Arg(&now), kSetBytes);
  }
  return result;
}

}  // namespace heapflare::base
