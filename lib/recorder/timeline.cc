#include "lib/recorder/timeline.h"

#include <cstring>

#include "lib/base/syscall.h"
#include "lib/recorder/recorder.h"

namespace heapflare::recorder {
namespace {

using box::Atomic;

constinit uint64_t last_history = 0;  // ns, of the point

void AddPoint(box::RegionId ring, const box::TimelinePoint& point) {
  box::Region& region = recorder.mapping.header().regions[ring];
  const uint64_t number = region.used;
  const uint64_t slot = number % region.capacity;
  if (!recorder.mapping.Reserve(ring, (slot + 1) * region.record_bytes)) return;
  box::PublishInRing(point, number, recorder.mapping.Records<box::TimelinePoint>(ring) + slot);
  Atomic(region.used).store(number + 1, std::memory_order_release);
}

}  // namespace

void AppendToTimeline(const box::TimelinePoint& point) {
  box::Header* header = Header();
  if (header == nullptr) return;
  AddPoint(box::kRecent, point);
  constexpr uint64_t kPeriod = box::kHistoryPeriodSeconds * uint64_t{1'000'000'000};
  if (last_history == 0 || point.time_mono - last_history >= kPeriod) {
    last_history = point.time_mono;
    AddPoint(box::kHistory, point);
  }
  Atomic(header->heartbeat_mono).store(point.time_mono, std::memory_order_relaxed);
  Atomic(header->heartbeat_utc)
      .store(static_cast<uint64_t>(base::UtcNanoseconds()), std::memory_order_relaxed);
}

void ForgetTimeline() { last_history = 0; }

}  // namespace heapflare::recorder
