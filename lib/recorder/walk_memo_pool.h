// The memos of the threads, as far as they go round.
#pragma once

#include "lib/recorder/walk_memo.h"

namespace heapflare::recorder {

// This thread's, to be used by nobody else; nullptr: there are more threads than memos, or there is
// no memory. Half a MiB of address space is taken at the first call. Async-signal-safe.
WalkMemo* MemoOfThisThread();

// Where the memos lie: they keep what registers held, so a search for references must not look
// there. No bytes while there are none.
void MemoryOfMemos(uint64_t* start, uint64_t* bytes);

}  // namespace heapflare::recorder
