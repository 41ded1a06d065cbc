// Memory for allocations that happen before the next allocator is known: dlsym makes some while it
// is being asked.
#pragma once

#include <cstddef>

namespace heapflare::recorder {

// Aligned to 64 bytes, zeroed; nullptr when the arena is used up. Never given back.
void* ArenaAllocate(size_t bytes);
bool InArena(const void* block);
// Bytes that were asked for.
size_t ArenaBlockSize(const void* block);

}  // namespace heapflare::recorder
