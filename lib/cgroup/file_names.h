// The files of the memory controller, by version.
#pragma once

#include "lib/cgroup/stat.h"

namespace heapflare::cgroup {

struct FileNames {
  const char* usage;
  const char* limit;
  const char* events;
};

constexpr FileNames NamesOf(Version version) {
  return version == Version::kV1
             ? FileNames{"memory.usage_in_bytes", "memory.limit_in_bytes", "memory.oom_control"}
             : FileNames{"memory.current", "memory.max", "memory.events"};
}

}  // namespace heapflare::cgroup
