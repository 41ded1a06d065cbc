// Memory of the whole machine, out of /proc/meminfo: what counts where no cgroup limits a process.
#pragma once

#include <cstdint>

#include "lib/cgroup/stat.h"

namespace heapflare::cgroup {

// Bytes; kUnknown where meminfo does not say.
struct NodeMemory {
  uint64_t total = kUnknown;      // MemTotal
  uint64_t available = kUnknown;  // MemAvailable: what can be had without swapping
  uint64_t in_use() const {
    if (total == kUnknown || available == kUnknown) return kUnknown;
    return total > available ? total - available : 0;
  }
  // Of all processes. inactive_file and active_file are 0: `available` counts them as free
  // already, so in_use() is a working set.
  MemoryStat stat;
};

// Reads `path` (/proc/meminfo). 0, negative errno, or -EINVAL if it has no MemTotal. Allocates
// nothing; async-signal-safe.
int ReadNodeMemory(const char* path, NodeMemory* memory);

}  // namespace heapflare::cgroup
