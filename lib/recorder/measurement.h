// How much memory is in use, of what limit: what one look reads. Bytes; box::kUnknown where it
// cannot be told.
//
// Of the levels of cgroups the one nearest to its limit is watched; ReadLimit chooses it. Without a
// lock of its own: see look.h.
#pragma once

#include <cstdint>

#include "lib/box/format.h"
#include "lib/cgroup/controller.h"

namespace heapflare::recorder {

struct Measurement {
  uint64_t usage = box::kUnknown;
  uint64_t limit = box::kUnknown;
  uint64_t value = box::kUnknown;  // of HEAPFLARE_METRIC: what the rungs are compared with
};

// The recorder's thread has descriptors of its own (thread.h), so each side keeps its own usage
// file open.
extern constinit cgroup::MemoryController thread_controller __attribute__((visibility("hidden")));
extern constinit cgroup::MemoryController hook_controller __attribute__((visibility("hidden")));
extern constinit int watched_level __attribute__((visibility("hidden")));

// On the recorder's thread.
uint64_t ReadLimit();

uint64_t ReadUsage(cgroup::MemoryController* controller);

// Page cache that the kernel can drop is not in the working set: it may not raise an alarm. Reading
// it costs ten times as much as the usage, so it is read only if the usage reaches `worth_a_look`.
uint64_t MetricValue(const cgroup::MemoryController& controller, uint64_t usage,
                     uint64_t worth_a_look);

// Of this process.
uint64_t ResidentBytes();

}  // namespace heapflare::recorder
