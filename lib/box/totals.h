// What the tallies of a header add up to.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "lib/box/format.h"

namespace heapflare::box {

struct Totals {
  uint64_t allocated_bytes = 0;  // 1/256 byte
  uint64_t freed_bytes = 0;
  uint64_t samples_taken = 0;
  uint64_t samples_freed = 0;

  // Never negative, whatever a damaged header says.
  uint64_t live_bytes() const { return allocated_bytes - std::min(freed_bytes, allocated_bytes); }
  uint64_t samples_live() const { return samples_taken - std::min(samples_freed, samples_taken); }
};

// The header may be a living one: what is freed is read before what is allocated, see format.h.
inline Totals SumTallies(const Header& header) {
  const auto load = [](const uint64_t& field) {
    return std::atomic_ref<uint64_t>(const_cast<uint64_t&>(field)).load(std::memory_order_acquire);
  };
  Totals totals;
  for (const Tally& tally : header.tallies) {
    totals.freed_bytes += load(tally.freed_bytes);
    totals.samples_freed += load(tally.samples_freed);
  }
  for (const Tally& tally : header.tallies) {
    totals.allocated_bytes += load(tally.allocated_bytes);
    totals.samples_taken += load(tally.samples_taken);
  }
  return totals;
}

}  // namespace heapflare::box
