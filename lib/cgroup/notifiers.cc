#include "lib/cgroup/notifiers.h"

#include <errno.h>

#include "lib/base/syscall.h"

namespace heapflare::cgroup {
namespace {

void Take(int fd, Notifier* notifier) {
  notifier->usable = fd >= 0;
  notifier->error = fd >= 0 ? 0 : fd;
  if (fd >= 0) base::Close(fd);
}

}  // namespace

Notifiers ProbeNotifiers(const MemoryController& controller, const Roots& roots) {
  Notifiers all = {
      {"cgroup.event_control", "usage crosses a threshold", false, -EOPNOTSUPP},
      {"memory.events", "usage reaches memory.high or memory.max", false, -EOPNOTSUPP},
      {"memory.pressure", "the cgroup waits for memory", false, -EOPNOTSUPP},
      {"/proc/pressure/memory", "the machine waits for memory", false, -EOPNOTSUPP},
  };
  if (controller.version() == Version::kV1) {
    Take(controller.Open(0, "cgroup.event_control", O_WRONLY), &all.threshold);
  }
  if (controller.version() == Version::kV2) {
    Take(controller.Open(0, "memory.events", O_RDONLY), &all.events);
    Take(controller.Open(0, "memory.pressure", O_RDWR), &all.cgroup_pressure);
  }
  Take(base::Open(roots.pressure, O_RDWR), &all.node_pressure);
  return all;
}

}  // namespace heapflare::cgroup
