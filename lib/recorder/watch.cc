#include "lib/recorder/watch.h"

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "lib/base/parse.h"
#include "lib/base/syscall.h"
#include "lib/box/totals.h"
#include "lib/cgroup/controller.h"
#include "lib/recorder/ladder.h"
#include "lib/recorder/memory_clock.h"
#include "lib/recorder/own_process.h"
#include "lib/recorder/ramp_stop.h"
#include "lib/recorder/recorder.h"
#include "lib/recorder/requests.h"
#include "lib/recorder/thread.h"
#include "lib/recorder/thread_state.h"
#include "lib/recorder/timeline.h"
#include "lib/recorder/tried_lock.h"

namespace heapflare::recorder {
namespace {

using box::kUnknown;

constexpr uint64_t kMiB = 1 << 20;
constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kMillisecond = 1'000'000;

// What one look found; bytes.
struct Measurement {
  uint64_t usage = kUnknown;
  uint64_t limit = kUnknown;
  uint64_t value = kUnknown;  // of HEAPFLARE_METRIC
};

// All below is guarded by `looking`, which is only ever tried by hooks.
constinit TriedLock looking;
// The recorder's thread has descriptors of its own (thread.h), so each side keeps its own usage
// file open.
constinit cgroup::MemoryController thread_controller;
constinit cgroup::MemoryController hook_controller;
constinit Ladder ladder;
// The level of the hierarchy that is nearest to its limit: whose usage is watched.
constinit int level = cgroup::kNodeLevel;
constinit uint64_t last_limit = 0;
constinit int64_t last_straw = 0;
constinit uint64_t last_straw_bytes = 0;
// The slope, for HEAPFLARE_ETA: bytes per second, averaged over about five seconds.
constinit double slope = 0;
constinit int64_t slope_time = 0;
constinit uint64_t slope_value = 0;
constinit int64_t last_eta = 0;

constinit std::atomic<bool> watching = false;  // there was a first look
constinit std::atomic<bool> tired_of_waiting = false;
constinit std::atomic<uint64_t> effective_limit = kUnknown;
constinit std::atomic<uint64_t> clock_bytes = 0;
constinit std::atomic<uint64_t> next_look = 0;  // in clock bytes
constinit std::atomic<uint64_t> coarse_now = 0;

class TryLook {
 public:
  // Tries again `more` times, while others run.
  explicit TryLook(int more = 0) : holding_(looking.Try()) {
    for (; holding_ == 0 && more > 0; --more) {
      base::Syscall(SYS_sched_yield);
      holding_ = looking.Try();
    }
  }
  ~TryLook() {
    if (holding_ != 0) looking.Release(holding_);
  }
  TryLook(const TryLook&) = delete;
  TryLook& operator=(const TryLook&) = delete;
  explicit operator bool() const { return holding_ != 0; }

 private:
  uint64_t holding_;
};

uint64_t ResidentBytes() {
  char text[128];
  const long bytes = base::ReadFile("/proc/self/statm", text, sizeof(text));
  std::string_view rest(text, bytes > 0 ? static_cast<size_t>(bytes) : 0);
  std::string_view field;
  base::TakeUntil(' ', &rest, &field);
  if (!base::TakeUntil(' ', &rest, &field)) return kUnknown;
  const auto pages = base::ParseNumber(field);
  return pages ? *pages * 4096 : kUnknown;
}

uint64_t ReadUsage(cgroup::MemoryController* controller) {
  uint64_t usage = 0;
  return controller->ReadUsage(level, &usage) == 0 ? usage : kUnknown;
}

// What the rungs are compared with. Page cache that the kernel can drop is not in the working set:
// it may not raise an alarm. Reading it costs ten times as much as the usage, so it is read only if
// the usage reaches `worth_a_look`.
uint64_t MetricValue(const cgroup::MemoryController& controller, uint64_t usage,
                     uint64_t worth_a_look) {
  // Without a cgroup, what this process holds is all that can be told.
  if (recorder.settings.metric == Metric::kRss || usage == kUnknown) return ResidentBytes();
  // Of a machine, "available" leaves the droppable cache out already.
  if (recorder.settings.metric == Metric::kUsage || usage < worth_a_look ||
      level == cgroup::kNodeLevel) {
    return usage;
  }
  cgroup::MemoryStat stat;
  return controller.ReadStat(level, &stat) == 0 ? cgroup::WorkingSet(usage, stat) : usage;
}

void NameRung(const Rung& rung, base::TextWriter* reason) {
  reason->Add("rung-");
  if (rung.percent == 0) {
    // 1536MiB, or plain bytes where that would round.
    if (rung.bytes % kMiB == 0) {
      reason->AddNumber(rung.bytes / kMiB).Add("MiB");
    } else {
      reason->AddNumber(rung.bytes);
    }
    return;
  }
  reason->AddNumber(rung.percent / 100);
  if (rung.percent % 100 != 0) reason->Add('.').AddNumber(rung.percent % 100, 2);
  reason->Add("pct");
}

// If a rung fires, asks for a dump, and threads wait for it.
void StepLadder(const Measurement& now, int64_t time) {
  if (now.value == kUnknown) return;
  const int index = ladder.Step(now.value, now.limit, time);
  if (index < 0) return;
  DumpRequest request;
  NameRung(ladder.rung(static_cast<uint32_t>(index)), &request.reason);
  request.usage = now.value;
  request.limit = now.limit;
  NoteEvent(box::EventKind::kRung, ladder.Threshold(static_cast<uint32_t>(index), now.limit),
            now.value, now.limit, request.reason.view(), now.usage);
  // Before it can be done.
  request.ramp_stop = ramp_stop.Begin();
  if (!requests.Leave(request)) ramp_stop.End(request.ramp_stop);
}

// How many more bytes may be allocated until the next look.
uint64_t ClockStep(const Measurement& now) {
  if (now.value == kUnknown) return 64 * kMiB;
  const uint64_t next = std::min(ladder.NextAbove(now.value, now.limit), now.limit);
  const uint64_t distance = next > now.value ? next - now.value : 0;
  return std::clamp<uint64_t>(distance / 8, kMiB / 4, 32 * kMiB);
}

uint64_t ReadLimit() {
  const cgroup::Limit limit = thread_controller.ReadLimit();
  // A limit that is given replaces what the cgroup says, but what fills it is still the own
  // cgroup's charge.
  if (recorder.settings.limit != 0) {
    level = thread_controller.levels() > 0 ? 0 : cgroup::kNodeLevel;
    return recorder.settings.limit;
  }
  level = limit.nearest.level;
  return limit.source == cgroup::LimitSource::kNone ? kUnknown : limit.nearest.bytes;
}

void UpdateSlope(uint64_t value, int64_t now) {
  const int64_t elapsed = now - slope_time;
  if (slope_time != 0 && elapsed < 100 * kMillisecond) return;
  if (slope_time != 0) {
    const double seconds = static_cast<double>(elapsed) / kSecond;
    const double latest = (static_cast<double>(value) - static_cast<double>(slope_value)) / seconds;
    const double share = std::min(seconds / 5, 1.0);
    slope += (latest - slope) * share;
  }
  slope_time = now;
  slope_value = value;
}

// The limit will be reached within HEAPFLARE_ETA at the present slope: once per cooldown.
void WantEtaDump(const Measurement& now, int64_t time) {
  const uint64_t seconds = recorder.settings.eta_seconds;
  if (seconds == 0 || now.limit == kUnknown || now.value == kUnknown || now.value >= now.limit ||
      slope <= 0) {
    return;
  }
  const double left = static_cast<double>(now.limit - now.value) / slope;
  if (left > static_cast<double>(seconds) ||
      (last_eta != 0 && time - last_eta < Ladder::kCooldown)) {
    return;
  }
  last_eta = time;
  DumpRequest request;
  request.reason.Add("eta");
  request.usage = now.value;
  request.limit = now.limit;
  requests.Leave(request);
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

void NoteLimit(uint64_t limit) {
  if (limit == last_limit) return;
  if (last_limit != 0) NoteEvent(box::EventKind::kLimitChanged, last_limit, limit, 0);
  last_limit = limit;
  effective_limit.store(limit, std::memory_order_relaxed);
}

// Whether hooks may look. A service that takes this much before the recorder's thread has looked
// for the first time could be at its limit by then: so it waits for that, once, for 100 ms at most.
bool Watching(uint64_t bytes) {
  constexpr uint64_t kWorthWaiting = 8 * kMiB;
  constexpr int kNaps = 1000;
  if (watching.load(std::memory_order_acquire)) return true;
  if (bytes < kWorthWaiting || ThreadOfRecorder() == 0) return false;
  for (int i = 0; i < kNaps && !tired_of_waiting.load(std::memory_order_relaxed); ++i) {
    constexpr timespec kNap = {0, kMillisecond / 10};
    base::Syscall(SYS_nanosleep, base::Arg(&kNap));
    if (watching.load(std::memory_order_acquire)) return true;
  }
  tired_of_waiting.store(true, std::memory_order_relaxed);
  return false;
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
  if (slope > 0) seconds = std::min(seconds, distance / slope / 4);
  return std::clamp(static_cast<int64_t>(seconds * kSecond), 5 * kMillisecond, kSecond);
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
                     .limit = effective_limit.load(std::memory_order_relaxed),
                     .value = kUnknown};
  now.value = MetricValue(hook_controller, now.usage, ladder.NextAbove(0, now.limit));
  next_look.store(total + ClockStep(now), std::memory_order_relaxed);
  StepLadder(now, base::MonotonicNanoseconds());
}

}  // namespace

uint64_t CoarseNow() {
  const uint64_t now = coarse_now.load(std::memory_order_relaxed);
  return now != 0 ? now : static_cast<uint64_t>(base::MonotonicNanoseconds());
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
  watching.store(false, std::memory_order_relaxed);
  tired_of_waiting.store(false, std::memory_order_relaxed);
  looking.Reset();
  ramp_stop.Reset();
  coarse_now.store(0, std::memory_order_relaxed);
  clock_bytes.store(0, std::memory_order_relaxed);
  next_look.store(0, std::memory_order_relaxed);
  effective_limit.store(kUnknown, std::memory_order_relaxed);
  last_limit = 0;
  ForgetTimeline();
  last_straw = 0;
  last_eta = 0;
  slope = 0;
  slope_time = 0;
}

void DescribeWatch(base::TextWriter* line) {
  const uint64_t interval = recorder.interval.load(std::memory_order_relaxed);
  line->Add("interval ").AddSize(interval).Add(", limit ");
  const uint64_t limit = effective_limit.load(std::memory_order_relaxed);
  if (limit == kUnknown) {
    line->Add("unknown");
  } else {
    line->AddSize(limit);
  }
  if (recorder.settings.limit != 0) {
    line->Add(" (HEAPFLARE_LIMIT)");
  } else if (level == cgroup::kNodeLevel) {
    line->Add(" (the machine's memory; no cgroup limit)");
  } else {
    const bool is_v1 = thread_controller.version() == cgroup::Version::kV1;
    line->Add(is_v1 ? " (cgroup v1 " : " (cgroup v2 ");
    line->Add(level < 0 ? std::string_view("above the container")
                        : thread_controller.directory(level));
    line->Add(')');
  }
}

int64_t LookAtMemory() {
  const int64_t time = base::MonotonicNanoseconds();
  coarse_now.store(static_cast<uint64_t>(time), std::memory_order_relaxed);
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
  const int of = std::max(level, 0);
  thread_controller.ReadStat(of, &stat);
  thread_controller.ReadEvents(of, &events);
  now.value = MetricValue(thread_controller, now.usage, 0);
  WritePoint(now, stat, events.oom_kill, time);
  if (now.value != kUnknown) UpdateSlope(now.value, time);
  StepLadder(now, time);
  WantEtaDump(now, time);
  watching.store(true, std::memory_order_release);
  return NextTick(now);
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
  const uint64_t limit = effective_limit.load(std::memory_order_relaxed);
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

}  // namespace heapflare::recorder
