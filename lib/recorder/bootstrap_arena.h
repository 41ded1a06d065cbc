// Memory for allocations that happen before the next allocator is known: dlsym makes some while it
// is being asked.
#pragma once

#include <cstddef>

#include "lib/recorder/free_filter.h"

namespace heapflare::recorder {

// Aligned to 64 bytes, zeroed; nullptr when the arena is used up. Never given back.
void* ArenaAllocate(size_t bytes);
// Sends frees of its blocks to the slow path, which knows the arena. To be done again whenever the
// filter has been cleared.
void AddUsedArena(FreeFilter* filter);
bool InArena(const void* block);
// All of it.
const void* ArenaStart();
size_t ArenaBytes();
// Bytes that were asked for.
size_t ArenaBlockSize(const void* block);

}  // namespace heapflare::recorder
