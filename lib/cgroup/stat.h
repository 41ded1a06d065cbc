// What a cgroup's memory is made of (memory.stat) and what happened to it (memory.events), the same
// for cgroup v1 and v2.
//
// All allocate nothing and are async-signal-safe.
#pragma once

#include <cstdint>

#include "lib/cgroup/lines.h"
#include "lib/cgroup/values.h"

namespace heapflare::cgroup {

enum class Version { kNone, kV1, kV2 };

// Bytes, of the cgroup and all below it; kUnknown where the kernel does not say.
struct MemoryStat {
  uint64_t anon = kUnknown;  // heap, stacks, private mappings
  uint64_t file = kUnknown;  // page cache, `shmem` included
  uint64_t shmem = kUnknown;
  // Slab, stacks, page tables, per-CPU data; on v2 also socket buffers, which v1 does not charge.
  uint64_t kernel = kUnknown;
  // Page cache without `shmem`, by whether it was used more than once.
  uint64_t inactive_file = kUnknown;
  uint64_t active_file = kUnknown;
  // v1: the lowest limit up to the hierarchy's root, those outside the container included.
  uint64_t hierarchical_limit = kUnknown;
};

// Adds up the lines of a memory.stat; `kernel` of v1 is not in there. 0 or the reader's negative
// errno; lines that are not understood are passed over.
int ParseStat(Version version, Lines* lines, MemoryStat* stat);

// Usage that the kernel cannot simply drop: what a limit is to be compared with. `usage` itself where
// the page cache is unknown; never below 0, since the numbers are read at different moments.
//
// Active page cache is left out too, other than in what Kubernetes calls the working set: the kernel
// drops all of it before it kills, so files that are read twice would raise false alarms.
uint64_t WorkingSet(uint64_t usage, const MemoryStat& stat);

// Counters since the cgroup was made; kUnknown where the kernel has none.
//
// On v2 they include all cgroups below. `oom` counts at the cgroup whose limit was hit, `oom_kill`
// at the victim's: an oom_kill without an oom came from a limit above, or from the node.
struct MemoryEvents {
  uint64_t low = kUnknown;
  uint64_t high = kUnknown;
  uint64_t max = kUnknown;  // v1: memory.failcnt
  uint64_t oom = kUnknown;
  uint64_t oom_kill = kUnknown;  // v1: this cgroup's own processes only
  uint64_t oom_group_kill = kUnknown;
};

// Of memory.events (v2) or memory.oom_control (v1). As ParseStat.
int ParseEvents(Lines* lines, MemoryEvents* events);

}  // namespace heapflare::cgroup
