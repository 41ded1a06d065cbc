// Walks the stack of the calling thread.
#pragma once

#include <cstdint>

#include "lib/recorder/row_walk.h"

namespace heapflare::recorder {

// Where a hook was called.
struct CallSite {
  const void* caller;  // the hook's return address: the recorded stack begins here
  // Of the function that the hook jumped to: its saved frame pointer, with the return address above.
  const void* frame;
};
// To be taken in a function that is not inlined and that a hook calls as its last act.
#define HEAPFLARE_CALL_SITE(caller) \
  { caller, __builtin_frame_address(0) }

// Fills `frames` (room for `capacity` + kOwnFrames) with return addresses, leaf first, beginning
// with the caller of the hook: the recorder's own frames are left out. At most `capacity` frames are
// kept; at least one, the caller, always is. Needs 6 KiB of stack. Not to be re-entered on one
// thread. `memo`: this thread's, or nullptr.
inline constexpr uint32_t kOwnFrames = 8;
Walk WalkStack(const CallSite& site, uint64_t* frames, uint32_t capacity, WalkMemo* memo);

}  // namespace heapflare::recorder
