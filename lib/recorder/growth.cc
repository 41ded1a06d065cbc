#include "lib/recorder/growth.h"

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "lib/base/syscall.h"
#include "lib/box/growth.h"
#include "lib/box/shared.h"
#include "lib/box/totals.h"
#include "lib/recorder/recorder.h"

namespace heapflare::recorder {
namespace {

using box::Atomic;
using box::Load;

constexpr uint64_t kShortestPeriod = 250'000'000;
constexpr uint64_t kLongestPeriod = 60'000'000'000;
constexpr uint64_t kLooksPerAge = 512;

constinit uint64_t last_look = 0;    // ns
constinit uint64_t last_counts = 0;  // of samples taken and freed

uint64_t LiveBytes(const box::Stack& stack) {
  // Freed before allocated: see format.h. A stack that is not published yet has zeros.
  const uint64_t freed = Load(stack.freed_bytes, std::memory_order_acquire);
  const uint64_t allocated = Load(stack.allocated_bytes, std::memory_order_acquire);
  return box::WholeBytes(allocated - std::min(freed, allocated));
}

}  // namespace

void LookAtGrowth() {
  box::Header* const header = Header();
  if (header == nullptr) return;
  const auto now = static_cast<uint64_t>(base::MonotonicNanoseconds());
  const uint64_t period =
      std::clamp((now - header->opened_mono) / kLooksPerAge, kShortestPeriod, kLongestPeriod);
  if (last_look != 0 && now - last_look < period) return;
  const box::Totals totals = box::SumTallies(*header);
  const uint64_t counts = totals.samples_taken + totals.samples_freed;
  if (last_look != 0 && counts == last_counts) return;

  box::Region& region = header->regions[box::kGrowth];
  const auto* const stacks = recorder.mapping.Records<const box::Stack>(box::kStacks);
  const uint64_t count = std::min(
      Load(header->regions[box::kStacks].used, std::memory_order_relaxed), region.capacity);
  uint64_t end = count;
  while (end > 0 && LiveBytes(stacks[end - 1]) == 0) --end;
  // No space: no column. Zeros in the place of what is not known would look like growth later.
  if (!recorder.mapping.Reserve(box::kGrowth, end * region.record_bytes)) return;
  end = std::min(count, region.reserved / region.record_bytes);

  const uint32_t column = box::ChooseGrowthColumn(header->growth_mono, now);
  auto* const records = recorder.mapping.Records<box::GrowthRecord>(box::kGrowth);
  Atomic(header->growth_mono[column]).store(0, std::memory_order_relaxed);
  for (uint64_t i = 0; i < end; ++i) {
    Atomic(records[i].live[column])
        .store(box::PackBytes(LiveBytes(stacks[i])), std::memory_order_release);
  }
  Atomic(header->growth_mono[column]).store(now, std::memory_order_release);
  Atomic(region.used).store(region.used + 1, std::memory_order_relaxed);
  last_look = now;
  last_counts = counts;
}

void ForgetGrowth() {
  last_look = 0;
  last_counts = 0;
}

}  // namespace heapflare::recorder
