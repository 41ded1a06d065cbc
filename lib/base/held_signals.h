// Keeps signals that a system call of ours raises from reaching the service.
//
// The kernel answers a write or a growing file beyond RLIMIT_FSIZE with SIGXFSZ, and a write to a
// pipe without reader with SIGPIPE; both end a service that has no handler. They go to the calling
// thread: blocked here they stay pending for it, and are taken off again unless they were pending
// before. Async-signal-safe.
#pragma once

#include <cstdint>

namespace heapflare::base {

class HeldSignals {
 public:
  HeldSignals();
  ~HeldSignals();
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;

  // Passes the result of a system call on, after taking back the signal that came with it.
  long Take(long result) const;

 private:
  uint64_t mask_before_ = 0;
  uint64_t pending_before_ = 0;
};

}  // namespace heapflare::base
