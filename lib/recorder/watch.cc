#include "lib/recorder/watch.h"

#include <algorithm>
#include <cstdint>

#include "lib/base/syscall.h"
#include "lib/box/totals.h"
#include "lib/recorder/alarms.h"
#include "lib/recorder/look.h"
#include "lib/recorder/measurement.h"
#include "lib/recorder/memory_clock.h"
#include "lib/recorder/ramp_stop.h"
#include "lib/recorder/recorder.h"
#include "lib/recorder/slope.h"
#include "lib/recorder/timeline.h"

namespace heapflare::recorder {

constinit TriedLock looking;
constinit LastLook last_look = {.taken = false, .limit = box::kUnknown, .time = 0};

namespace {

using box::kUnknown;

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kMillisecond = 1'000'000;

// Guarded by `looking`.
constinit uint64_t last_limit = 0;
constinit uint64_t last_headroom = kUnknown;
constinit Slope slope;

void NoteLimit(uint64_t limit) {
  if (limit == last_limit) return;
  if (last_limit != 0) NoteEvent(box::EventKind::kLimitChanged, last_limit, limit, 0);
  last_limit = limit;
  last_look.limit.store(limit, std::memory_order_relaxed);
}

void NoteHeadroom(const Measurement& now, const cgroup::MemoryStat& stat) {
  if (now.usage == kUnknown || now.limit == kUnknown) {
    last_headroom = kUnknown;
    return;
  }
  const uint64_t taken =
      watched_level == cgroup::kNodeLevel ? now.usage : cgroup::WorkingSet(now.usage, stat);
  last_headroom = now.limit - std::min(now.limit, taken);
}

void WritePoint(const Measurement& now, const cgroup::MemoryStat& stat, uint64_t kills,
                int64_t time) {
  box::Header* header = Header();
  if (header == nullptr) return;
  const box::TimelinePoint point = {
      .sequence = 0,
      .time_mono = static_cast<uint64_t>(time),
      .usage = now.usage,
      .limit = now.limit,
      .working_set = now.usage == kUnknown ? kUnknown : cgroup::WorkingSet(now.usage, stat),
      .anonymous = stat.anon,
      .file = stat.file,
      .shared = stat.shmem,
      .kernel = stat.kernel,
      .resident = ResidentBytes(),
      .live_heap = box::WholeBytes(box::SumTallies(*header).live_bytes()),
      .oom_kills = kills};
  AppendToTimeline(point);
}

// When the recorder's thread looks next: often enough to see the next rung coming at the present
// slope. A slope can begin at any moment, and what malloc does not see has no other clock: so also
// often enough for memory that fills from nothing to the limit in a second, and in the last fifth
// below the limit at least 50 times a second.
int64_t NextTick(const Measurement& now) {
  if (now.value == kUnknown || now.limit == kUnknown || now.limit == 0) return kSecond;
  const uint64_t next = std::min(ladder.NextAbove(now.value, now.limit), now.limit);
  const double distance = next > now.value ? static_cast<double>(next - now.value) : 0;
  const double limit = static_cast<double>(now.limit);
  const bool near = static_cast<double>(now.value) >= 0.8 * limit;
  double seconds = near ? 0.02 : std::max(distance / limit / 2, 0.02);
  const double rate = slope.per_second();
  if (rate > 0) seconds = std::min(seconds, distance / rate / 4);
  return std::clamp(static_cast<int64_t>(seconds * kSecond), 5 * kMillisecond, kSecond);
}

}  // namespace

uint64_t Headroom() { return last_headroom; }

TryLook::TryLook(int more) : holding_(looking.Try()) {
  for (; holding_ == 0 && more > 0; --more) {
    base::Syscall(SYS_sched_yield);
    holding_ = looking.Try();
  }
}

void StartWatching() {
  thread_controller.Find();
  hook_controller.Find();
  ladder.Configure(recorder.settings.rungs, recorder.settings.rung_count);
}

void FollowCgroup() {
  if (!thread_controller.Moved()) return;
  const TryLook look(1000);
  if (!look) return;
  thread_controller.Forget();
  thread_controller.Find();
  hook_controller.Find();
}

void ForgetWatch() {
  // The descriptor that the parent's hooks kept is in this table.
  hook_controller.Forget();
  looking.Reset();
  ramp_stop.Reset();
  last_look.taken.store(false, std::memory_order_relaxed);
  last_look.limit.store(kUnknown, std::memory_order_relaxed);
  last_look.time.store(0, std::memory_order_relaxed);
  last_limit = 0;
  slope = {};
  ForgetTimeline();
  ForgetMemoryClock();
  ForgetAlarms();
}

void DescribeWatch(base::TextWriter* line) {
  const uint64_t interval = recorder.interval.load(std::memory_order_relaxed);
  line->Add("interval ").AddSize(interval).Add(", limit ");
  const uint64_t limit = last_look.limit.load(std::memory_order_relaxed);
  if (limit == kUnknown) {
    line->Add("unknown");
  } else {
    line->AddSize(limit);
  }
  if (recorder.settings.limit != 0) {
    line->Add(" (HEAPFLARE_LIMIT)");
  } else if (watched_level == cgroup::kNodeLevel) {
    line->Add(" (the machine's memory; no cgroup limit)");
  } else {
    const bool is_v1 = thread_controller.version() == cgroup::Version::kV1;
    line->Add(is_v1 ? " (cgroup v1 " : " (cgroup v2 ");
    line->Add(watched_level < 0 ? std::string_view("above the container")
                                : thread_controller.directory(watched_level));
    line->Add(')');
  }
}

int64_t LookAtMemory() {
  const int64_t time = base::MonotonicNanoseconds();
  last_look.time.store(static_cast<uint64_t>(time), std::memory_order_relaxed);
  // Hooks have it for microseconds.
  const TryLook look(1000);
  if (!look) {
    looking.EndIfAbandoned(time);
    return kMillisecond;
  }
  Measurement now;
  now.limit = ReadLimit();
  now.usage = ReadUsage(&thread_controller);
  NoteLimit(now.limit);
  cgroup::MemoryStat stat;
  cgroup::MemoryEvents events;
  const int of = std::max(watched_level, 0);
  thread_controller.ReadStat(of, &stat);
  thread_controller.ReadEvents(of, &events);
  now.value = MetricValue(thread_controller, now.usage, 0);
  NoteHeadroom(now, stat);
  WritePoint(now, stat, events.oom_kill, time);
  if (now.value != kUnknown) slope.Update(now.value, time);
  StepLadder(now, time);
  WantEtaDump(now, time, slope.per_second());
  last_look.taken.store(true, std::memory_order_release);
  return NextTick(now);
}

}  // namespace heapflare::recorder
