// Which of the kernel's notifications about memory could be used here: for `heapflare doctor`.
//
// The files are only opened the way that using them would need, nothing is armed. So what arming
// alone can tell stays open: an RT kernel refuses v1's eventfd, and before a process without
// CAP_SYS_RESOURCE a PSI trigger must have a window of 2 s or a multiple.
#pragma once

#include "lib/cgroup/controller.h"

namespace heapflare::cgroup {

struct Notifier {
  const char* name;  // of the file, for people
  const char* what;  // what it tells, a few words
  bool usable;
  int error;  // why not: negative errno; -EOPNOTSUPP if this cgroup version has none
};

struct Notifiers {
  Notifier threshold;        // v1 cgroup.event_control: usage crossed a value
  Notifier events;           // v2 memory.events, POLLPRI: a limit was hit
  Notifier cgroup_pressure;  // v2 memory.pressure (PSI): tasks of the cgroup stall for memory
  Notifier node_pressure;    // /proc/pressure/memory (PSI): tasks of the machine do
};

// Some 20 µs; allocates nothing.
Notifiers ProbeNotifiers(const MemoryController& controller, const Roots& roots = {});

}  // namespace heapflare::cgroup
