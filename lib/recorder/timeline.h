// Writes the box's timeline: what looks at memory found. On the recorder's thread only.
#pragma once

#include "lib/box/format.h"

namespace heapflare::recorder {

// Adds the point to the recent ones, to the history if its time has come, and renews the heartbeat.
// `point.sequence` is set here. Does nothing while there is no box.
void AppendToTimeline(const box::TimelinePoint& point);

// In a forked child, whose box has no points yet.
void ForgetTimeline();

}  // namespace heapflare::recorder
