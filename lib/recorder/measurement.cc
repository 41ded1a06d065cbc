#include "lib/recorder/measurement.h"

#include "lib/base/parse.h"
#include "lib/base/syscall.h"
#include "lib/recorder/recorder.h"

namespace heapflare::recorder {

constinit cgroup::MemoryController thread_controller;
constinit cgroup::MemoryController hook_controller;
constinit int watched_level = cgroup::kNodeLevel;

uint64_t ResidentBytes() {
  char text[128];
  const long bytes = base::ReadFile("/proc/self/statm", text, sizeof(text));
  std::string_view rest(text, bytes > 0 ? static_cast<size_t>(bytes) : 0);
  std::string_view field;
  base::TakeUntil(' ', &rest, &field);
  if (!base::TakeUntil(' ', &rest, &field)) return box::kUnknown;
  const auto pages = base::ParseNumber(field);
  return pages ? *pages * 4096 : box::kUnknown;
}

uint64_t ReadLimit() {
  const cgroup::Limit limit = thread_controller.ReadLimit();
  // A limit that is given replaces what the cgroup says, but what fills it is still the own
  // cgroup's charge.
  if (recorder.settings.limit != 0) {
    watched_level = thread_controller.levels() > 0 ? 0 : cgroup::kNodeLevel;
    return recorder.settings.limit;
  }
  watched_level = limit.nearest.level;
  return limit.source == cgroup::LimitSource::kNone ? box::kUnknown : limit.nearest.bytes;
}

uint64_t ReadUsage(cgroup::MemoryController* controller) {
  uint64_t usage = 0;
  return controller->ReadUsage(watched_level, &usage) == 0 ? usage : box::kUnknown;
}

uint64_t MetricValue(const cgroup::MemoryController& controller, uint64_t usage,
                     uint64_t worth_a_look) {
  // Without a cgroup, what this process holds is all that can be told.
  if (recorder.settings.metric == Metric::kRss || usage == box::kUnknown) return ResidentBytes();
  // Of a machine, "available" leaves the droppable cache out already.
  if (recorder.settings.metric == Metric::kUsage || usage < worth_a_look ||
      watched_level == cgroup::kNodeLevel) {
    return usage;
  }
  cgroup::MemoryStat stat;
  return controller.ReadStat(watched_level, &stat) == 0 ? cgroup::WorkingSet(usage, stat) : usage;
}

}  // namespace heapflare::recorder
