#include "lib/recorder/ramp_stop.h"

#include <algorithm>
#include <climits>

#include "lib/base/syscall.h"
#include "lib/recorder/own_process.h"
#include "lib/recorder/thread.h"

namespace heapflare::recorder {

constinit RampStop ramp_stop;

namespace {

const volatile uint32_t* Word(const std::atomic<uint32_t>& word) {
  return reinterpret_cast<const volatile uint32_t*>(&word);
}

}  // namespace

uint32_t RampStop::Begin() {
  if (++last_ == 0) ++last_;
  until_.store(base::MonotonicNanoseconds() + kLongest, std::memory_order_relaxed);
  dump_.store(last_, std::memory_order_release);
  return last_;
}

void RampStop::End(uint32_t dump) {
  if (dump == 0 || !dump_.compare_exchange_strong(dump, 0, std::memory_order_relaxed)) return;
  base::FutexWake(Word(dump_), INT_MAX);
}

void RampStop::WaitForDump() {
  const uint32_t dump = dump_.load(std::memory_order_acquire);
  // A child of vfork keeps its parent's thread waiting as it is. And without a thread nobody writes.
  if (dump == 0 || ThreadOfRecorder() == 0 || !IsOwnProcessId()) return;
  do {
    // Without a clock there is no bound, so there is no waiting.
    const int64_t now = base::MonotonicNanoseconds();
    const int64_t left = now == 0 ? 0 : until_.load(std::memory_order_relaxed) - now;
    // It takes too long: the others need not find that out by themselves.
    if (left <= 0) End(dump);
    if (left > 0) base::FutexWait(Word(dump_), dump, std::min(left, kLongest));
  } while (dump_.load(std::memory_order_acquire) == dump);
}

}  // namespace heapflare::recorder
