// The allocation clock: the sampler's slow path as the trigger that a ramp cannot outrun.
//
// After every few sampled megabytes, fewer as the next rung comes near, the thread that just
// allocated reads the cgroup's usage (one pread) and, if a rung is reached, has the recorder's
// thread write the dump. All threads that sample wait for that (ramp_stop.h). A request that is
// larger than the headroom is noticed before its memory exists.
#pragma once

#include <cstddef>
#include <cstdint>

namespace heapflare::recorder {

// From this size on, requests are compared with the headroom. The sampler lets none of kSlice bytes
// or more pass unseen; smaller ones are seen with their sampling probability.
inline constexpr size_t kLargeRequest = 1 << 20;

// `bytes` more were allocated, by estimate. `may_look`: false inside a signal handler that
// interrupted the recorder, and where the stack ends; the bytes then count towards the next look,
// and nothing is waited for.
void AdvanceMemoryClock(uint64_t bytes, bool may_look);

// A request of `bytes` by `stack` is about to be passed on. If it is larger than the headroom, a
// dump is made first (reason "straw") that names the stack.
void BeforeLargeRequest(size_t bytes, uint32_t stack);

// In a forked child.
void ForgetMemoryClock();

// CLOCK_MONOTONIC, ns, as of the last look of the recorder's thread: up to a second old, but free.
uint64_t CoarseNow();

}  // namespace heapflare::recorder
