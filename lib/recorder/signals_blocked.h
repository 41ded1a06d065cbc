// Keeps signal handlers out while this thread opens the box.
//
// A handler may fork, and its child goes on from the middle: it would make, or remove, the files of
// its parent. Everything else in a hook bears that (inside.h).
//
// Signals that an instruction raises by itself stay open: blocked, they would kill the process (a
// service may handle SIGSYS for a system call that seccomp forbids). Two system calls; nests.
#pragma once

#include <csignal>
#include <cstdint>

#include "lib/base/syscall.h"

namespace heapflare::recorder {

class SignalsBlocked {
 public:
  SignalsBlocked() {
    uint64_t blocked = ~uint64_t{0};
    for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS}) {
      blocked &= ~(uint64_t{1} << (signal - 1));
    }
    base::Syscall(SYS_rt_sigprocmask, SIG_BLOCK, base::Arg(&blocked), base::Arg(&before_),
                  sizeof(blocked));
  }
  ~SignalsBlocked() {
    base::Syscall(SYS_rt_sigprocmask, SIG_SETMASK, base::Arg(&before_), 0, sizeof(before_));
  }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  uint64_t before_ = 0;
};

}  // namespace heapflare::recorder
