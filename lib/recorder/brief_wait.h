// Waits for another thread that is about to be done, never without bound.
//
// By the clock: a service's timers interrupt every sleep. Async-signal-safe.
#pragma once

#include <cstdint>

#include "lib/base/syscall.h"

namespace heapflare::recorder {

// Until `done()` or for `most_ns`: first lets others run, then sleeps a millisecond at a time. What
// `done()` said last.
template <typename Done>
bool WaitBriefly(int64_t most_ns, Done done) {
  constexpr int kYields = 100;
  for (int i = 0; i < kYields; ++i) {
    if (done()) return true;
    base::Syscall(SYS_sched_yield);
  }
  const int64_t end = base::MonotonicNanoseconds() + most_ns;
  while (!done()) {
    if (base::MonotonicNanoseconds() > end) return false;
    constexpr timespec kMillisecond = {0, 1'000'000};
    base::Syscall(SYS_nanosleep, base::Arg(&kMillisecond));
  }
  return true;
}

}  // namespace heapflare::recorder
