// What the recorder knows of each thread.
//
// In initial-exec TLS: reaching it is one instruction, never allocates, and works in TLS
// destructors, in signal handlers and after main. Trivially destructible and valid when all zero.
// The recorder's own thread has none.
#pragma once

#include <cstdint>

#include "lib/recorder/sampler.h"

namespace heapflare::recorder {

class WalkMemo;

struct ThreadState {
  Sampler sampler;
  // Where on the stack this thread entered the recorder's slow path; 0: it is outside. A signal
  // handler that allocates meanwhile must not enter the unwinder a second time.
  uint64_t entered_at;
  // In a forked child: what its parent's handler interrupted is still under way, see inside.h.
  bool start_over;
  // Too little stack is left for more than booking what is known: no walk, no look at files.
  uint32_t cramped;
  // A read outside the stack ended the last walk.
  uint32_t walk_failed;
  // heapflare_leak_check_disable was called so often more than heapflare_leak_check_enable: blocks
  // are marked as ignored.
  uint32_t leaks_ignored;
  // Which of the shared counters it adds to; 0: none chosen yet.
  uint32_t number;
  // The part of the current stack that may be read, and how far it may be asked for
  // (stack_bounds.h).
  struct Bounds {
    uint64_t low;
    uint64_t high;
    uint64_t limit;
  } bounds;
  // The same of the stack that libc gave to this thread, as far down as it was met; 0: not yet.
  uint64_t own_low;
  uint64_t own_high;
  // Bytes sampled since they were last added to the process's allocation clock.
  uint64_t clock_bytes;
  // What the last walk met (walk_memo.h), in exact mode; nullptr also after there was none to be had.
  WalkMemo* memo;
  bool memo_asked;
};

extern thread_local constinit ThreadState thread_state
    __attribute__((tls_model("initial-exec"), visibility("hidden")));

}  // namespace heapflare::recorder
