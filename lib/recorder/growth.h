// Fills the box's history of every stack's live bytes (lib/box/growth.h), from which leaks are told
// later, of a living process or a dead one. On the recorder's thread only.
//
// It looks as often as the process is old: every 512th of its age, but not more often than four
// times a second, nor less often than once a minute; and not at all while nothing is sampled. A look
// reads each stack's counters once and stores two bytes per stack, up to the last one that has
// live bytes: 32,000 stacks take 0.2 ms (and 0.8 ms the first time), a usual service some microseconds.
#pragma once

namespace heapflare::recorder {

// Looks if it is time. Called before the clock that samples are stamped with moves on: so a
// sample's stamp is earlier than a column's time if, and only if, it was there to be seen (where
// the clock moves less than ten times a second: stamps count tenths).
void LookAtGrowth();

// In a forked child, whose box has no columns yet.
void ForgetGrowth();

}  // namespace heapflare::recorder
