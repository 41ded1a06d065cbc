// Turns what a look found into dumps: at rungs, and when the limit is near in time.
//
// For whoever holds the lock on looks (look.h). Times in ns, CLOCK_MONOTONIC.
#pragma once

#include <cstdint>

#include "lib/recorder/ladder.h"
#include "lib/recorder/measurement.h"

namespace heapflare::recorder {

extern constinit Ladder ladder __attribute__((visibility("hidden")));

// If a rung fires, asks for a dump, for which threads that sample wait (ramp_stop.h).
void StepLadder(const Measurement& now, int64_t time);

// If the limit will be reached within HEAPFLARE_ETA at this slope, bytes per second, asks for a
// dump: once per cooldown.
void WantEtaDump(const Measurement& now, int64_t time, double slope);

// In a forked child.
void ForgetAlarms();

}  // namespace heapflare::recorder
