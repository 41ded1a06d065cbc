// Looks which sampled blocks nothing refers to: one pass of the evidence "unreachable".
//
//   our thread     lists the live samples (block_index), starts the collector (stopped_threads)
//   the collector  stops all threads, reads their registers, forks, lets them go: the pause
//   the copy       at idle priority, first to be killed when memory is short, searches itself (scan)
//   our thread     meanwhile does what it always does, and looks now and then; marks the samples
//
// One pass proves little: a pointer may have been in a register that was not seen, or in a pipe. A
// block that nothing refers to stays so; so it is called unreachable after several passes in a row
// (Reach.passes_needed), and the passes are made by who asks, as far apart as they please.
//
// What is not allowed is done without: where ptrace is refused nobody is stopped and no registers
// are seen, but the arguments of system calls are; where memory is short nothing is copied and
// memory is searched as it is. Each is a mode (box::ReachMode). Where it is shorter still, the pass
// is refused, with the reason.
//
// On the recorder's thread only.
#pragma once

#include <cstdint>

#include "lib/base/text.h"

namespace heapflare::recorder {

// Starts a pass. False: one is under way. What else speaks against it is told by AdvanceReach.
bool StartReach(uint32_t passes_needed, uint32_t flags);

bool ReachActive();

// When the thread must look again at the latest, ns.
int64_t ReachPause();

// Looks how far the pass is. True once, when it is over: Header.reach has what it found, `text` the
// reason if it failed.
bool AdvanceReach(base::TextWriter* text);

// In a forked child, which has no part in it.
void ForgetReach();

}  // namespace heapflare::recorder
