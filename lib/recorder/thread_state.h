// What the recorder knows of each thread.
//
// In initial-exec TLS: reaching it is one instruction, never allocates, and works in TLS
// destructors, in signal handlers and after main. Trivially destructible and valid when all zero.
// The recorder's own thread has none.
#pragma once

#include <cstdint>

#include "lib/recorder/sampler.h"

namespace heapflare::recorder {

struct ThreadState {
  Sampler sampler;
  // Above zero while this thread is inside the recorder's slow path: a signal handler that
  // allocates then must not enter the unwinder a second time.
  uint32_t busy;
  // A read outside the stack ended the last walk.
  uint32_t walk_failed;
  // The part of the current stack that is known to be readable.
  uint64_t stack_low;
  uint64_t stack_high;
  // Which of the shared counters it adds to; 0: none chosen yet.
  uint32_t number;
  // Bytes sampled since they were last added to the process's allocation clock.
  uint64_t clock_bytes;
};

extern thread_local constinit ThreadState thread_state
    __attribute__((tls_model("initial-exec"), visibility("hidden")));

}  // namespace heapflare::recorder
