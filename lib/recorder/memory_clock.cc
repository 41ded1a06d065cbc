#include "lib/recorder/memory_clock.h"

#include <algorithm>
#include <atomic>

#include "lib/base/syscall.h"
#include "lib/recorder/alarms.h"
#include "lib/recorder/look.h"
#include "lib/recorder/measurement.h"
#include "lib/recorder/own_process.h"
#include "lib/recorder/ramp_stop.h"
#include "lib/recorder/recorder.h"
#include "lib/recorder/requests.h"
#include "lib/recorder/thread.h"
#include "lib/recorder/thread_state.h"

namespace heapflare::recorder {
namespace {

using box::kUnknown;

constexpr uint64_t kMiB = 1 << 20;
constexpr int64_t kMillisecond = 1'000'000;

constinit std::atomic<bool> tired_of_waiting = false;
constinit std::atomic<uint64_t> clock_bytes = 0;
constinit std::atomic<uint64_t> next_look = 0;  // in clock bytes
// Guarded by the lock on looks.
constinit int64_t last_straw = 0;
constinit uint64_t last_straw_bytes = 0;

// Whether hooks may look. A service that takes this much before the recorder's thread has looked
// for the first time could be at its limit by then: so it waits for that, once, for 100 ms at most.
bool Watching(uint64_t bytes) {
  constexpr uint64_t kWorthWaiting = 8 * kMiB;
  constexpr int kNaps = 1000;
  if (last_look.taken.load(std::memory_order_acquire)) return true;
  if (bytes < kWorthWaiting || ThreadOfRecorder() == 0) return false;
  for (int i = 0; i < kNaps && !tired_of_waiting.load(std::memory_order_relaxed); ++i) {
    constexpr timespec kNap = {0, kMillisecond / 10};
    base::Syscall(SYS_nanosleep, base::Arg(&kNap));
    if (last_look.taken.load(std::memory_order_acquire)) return true;
  }
  tired_of_waiting.store(true, std::memory_order_relaxed);
  return false;
}

// How many more bytes may be allocated until the next look.
uint64_t ClockStep(const Measurement& now) {
  if (now.value == kUnknown) return 64 * kMiB;
  const uint64_t next = std::min(ladder.NextAbove(now.value, now.limit), now.limit);
  const uint64_t distance = next > now.value ? next - now.value : 0;
  return std::clamp<uint64_t>(distance / 8, kMiB / 4, 32 * kMiB);
}

void LookFromHook() {
  const uint64_t total =
      clock_bytes.fetch_add(thread_state.clock_bytes, std::memory_order_relaxed) +
      thread_state.clock_bytes;
  thread_state.clock_bytes = 0;
  if (total < next_look.load(std::memory_order_relaxed) || !Watching(total) || !IsOwnProcessId()) {
    return;
  }
  const TryLook look;
  if (!look) return;
  Measurement now = {.usage = ReadUsage(&hook_controller),
                     .limit = last_look.limit.load(std::memory_order_relaxed),
                     .value = kUnknown};
  now.value = MetricValue(hook_controller, now.usage, ladder.NextAbove(0, now.limit));
  next_look.store(total + ClockStep(now), std::memory_order_relaxed);
  StepLadder(now, base::MonotonicNanoseconds());
}

}  // namespace

uint64_t CoarseNow() {
  const uint64_t now = last_look.time.load(std::memory_order_relaxed);
  return now != 0 ? now : static_cast<uint64_t>(base::MonotonicNanoseconds());
}

void AdvanceMemoryClock(uint64_t bytes, bool may_look) {
  // Threads add what they sampled in portions, so that exact mode does not fight for one cache
  // line.
  constexpr uint64_t kPortion = 64 << 10;
  thread_state.clock_bytes += bytes;
  if (!may_look) return;
  if (thread_state.clock_bytes >= kPortion) LookFromHook();
  // The ramp stops here until the dump is on disk: that is what makes it complete before the kill.
  ramp_stop.Wait();
}

void BeforeLargeRequest(size_t bytes, uint32_t stack) {
  // Nothing can serve it, so it fills no memory: a negative number, or an overflow.
  if (bytes > PTRDIFF_MAX) return;
  if (!Watching(bytes)) return;
  const uint64_t limit = last_look.limit.load(std::memory_order_relaxed);
  if (limit == kUnknown || !IsOwnProcessId()) return;
  int slot = -1;
  {
    const TryLook look(1000);
    if (!look) return;
    const uint64_t usage = ReadUsage(&hook_controller);
    const uint64_t value =
        usage == kUnknown || usage + bytes > limit ? MetricValue(hook_controller, usage, 0) : usage;
    const uint64_t headroom = value != kUnknown && value < limit ? limit - value : 0;
    if (value == kUnknown || bytes <= headroom) return;
    // A program that reserves more than it uses does so again and again: only a larger request, or
    // one after a while, is news.
    const int64_t time = base::MonotonicNanoseconds();
    if (last_straw != 0 && time - last_straw < Ladder::kCooldown && bytes <= last_straw_bytes) {
      return;
    }
    last_straw = time;
    last_straw_bytes = bytes;
    NoteEvent(box::EventKind::kStraw, bytes, headroom, stack, {}, usage);
    DumpRequest request;
    request.reason.Add("straw");
    request.usage = value;
    request.limit = limit;
    request.straw = {.stack = stack, .bytes = bytes};
    slot = requests.Post(request);
  }
  if (slot >= 0) requests.Wait(slot, 250 * kMillisecond, nullptr);
}

void ForgetMemoryClock() {
  tired_of_waiting.store(false, std::memory_order_relaxed);
  clock_bytes.store(0, std::memory_order_relaxed);
  next_look.store(0, std::memory_order_relaxed);
  last_straw = 0;
}

}  // namespace heapflare::recorder
