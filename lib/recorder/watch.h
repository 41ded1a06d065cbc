// Watches memory against the limit: one look at a time, by the recorder's thread on its ticks and
// by allocating threads on the allocation clock.
#pragma once

#include <cstdint>

#include "lib/base/text.h"

namespace heapflare::recorder {

// Finds the cgroup. On the recorder's thread, before the first look; until then the clock does
// nothing.
void StartWatching();
// In a forked child, on the thread that forked.
void ForgetWatch();

// Finds the cgroup again if the process was moved into another one. On the recorder's thread, now
// and then.
void FollowCgroup();

// "interval 512 KiB, limit 256 MiB (cgroup v1 /sys/fs/cgroup/memory/x)": for the line at start.
void DescribeWatch(base::TextWriter* line);

// What the limit leaves, as of the last look, whatever HEAPFLARE_METRIC is: page cache that the
// kernel can drop counts as free. kUnknown: there is no limit, or it could not be read.
uint64_t Headroom();

// A full look: limit, usage, what it is made of; writes a timeline point; wants a dump if a rung is
// reached or the limit is near in time. Returns when to look again, ns.
int64_t LookAtMemory();

}  // namespace heapflare::recorder
