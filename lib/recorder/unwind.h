// Walks the stack of the calling thread.
#pragma once

#include <cstdint>

namespace heapflare::recorder {

struct Walk {
  uint32_t depth;
  uint32_t flags;  // box::StackFlags
};

// Fills `frames` (room for `capacity` + kOwnFrames) with return addresses, leaf first, beginning
// with `caller`, which is the return address of the hook: the recorder's own frames are left out.
// At most `capacity` frames are kept; at least one, `caller`, always is. Needs 5 KiB of stack. Not
// to be re-entered on one thread.
inline constexpr uint32_t kOwnFrames = 8;
Walk WalkStack(const void* caller, uint64_t* frames, uint32_t capacity);

}  // namespace heapflare::recorder
