// Stops the ramp while the dump at a rung is written.
//
// The thread whose allocation reached the rung waits for the dump, and so does every other one that
// takes a sample meanwhile: else they fill what is left of the limit, and keep the recorder's thread
// from the processor. All of them together for kLongest from when the dump was wanted, not each.
//
// One word that is not zero while a dump is under way. Valid when all zero; async-signal-safe but for
// the waiting; allocates nothing.
#pragma once

#include <atomic>
#include <cstdint>

namespace heapflare::recorder {

class RampStop {
 public:
  static constexpr int64_t kLongest = 100'000'000;  // ns

  // A dump is wanted: threads wait for it from now on. Its number, never 0. A later one takes the
  // place of one that is still under way. For whoever holds the lock on looks (watch.cc).
  uint32_t Begin();

  // That dump is written, or will not be.
  void End(uint32_t dump);

  // Waits for the dump that is under way. The usual path is this one load. Not to be called below a
  // signal handler that interrupted the recorder, nor on the recorder's own thread.
  void Wait() {
    if (__builtin_expect(dump_.load(std::memory_order_relaxed) != 0, 0)) WaitForDump();
  }

  // In a forked child, for which no dump is under way.
  void Reset() { dump_.store(0, std::memory_order_relaxed); }

 private:
  void WaitForDump();

  std::atomic<uint32_t> dump_ = 0;
  std::atomic<int64_t> until_ = 0;  // CLOCK_MONOTONIC, ns
  uint32_t last_ = 0;
};

extern constinit RampStop ramp_stop __attribute__((visibility("hidden")));

}  // namespace heapflare::recorder
