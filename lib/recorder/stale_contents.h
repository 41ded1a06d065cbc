// Keeps a leak check from taking what was left in memory for references.
//
// A pointer that was stored in a block and outlived it still lies there when the block is freed, and
// in the next block at that place as long as its owner has not stored to it. To a search for
// references it looks like any other: it hides leaks. So, in a leak check only:
//   - what a new block holds that nobody defined is zeroed: after malloc, and where realloc makes a
//     block longer. Of each block the first kMostCleared bytes; larger ones mostly come from the
//     kernel, zeroed.
//   - a block that is freed is marked in its third word, which glibc's lists of free blocks leave
//     alone: so a walk over the heap tells a block that was freed from one that we never saw
//     (leak_memory.h). It is not zeroed: a program that still reads it finds what it would find
//     without us, but for that word.
//   - realloc copies by itself where the block would move, so that this holds for the old place too.
//
// Thread- and async-signal-safe. Allocators other than glibc's get the first of these only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lib/recorder/recorder.h"

namespace heapflare::recorder {

inline constexpr size_t kMostCleared = 128 << 10;

inline bool KeepsStaleContentsAway() { return recorder.settings.leak_check; }

// Zeroes `block`, of the next allocator, of which `bytes` were asked for, from byte `from` on.
void ClearBlock(void* block, size_t bytes, size_t from);

// Before the real free.
void MarkFreed(void* block);
// What the word at kFreedMarkAt of a block holds after that.
inline constexpr uint64_t kFreedMarkAt = 16;
constexpr uint64_t FreedMark(uint64_t block) { return block ^ 0xf1ee'f1ee'0000'f1ee; }

// realloc of a block of `old_bytes` of the next allocator. As realloc it leaves `old` as it was when it fails.
void* ReallocateCleanly(void* old, size_t old_bytes, size_t bytes);

// How glibc's malloc keeps a block: the word in front of it is the size of the chunk, which begins 16
// bytes before the block and reaches 8 bytes past what may be used; with flags below.
inline constexpr uint64_t kChunkInUse = 1;    // of the chunk before this one
inline constexpr uint64_t kChunkMapped = 2;   // mapped by itself
inline constexpr uint64_t kChunkOfArena = 4;  // not of the main arena
inline uint64_t ChunkWord(const void* block) { return static_cast<const uint64_t*>(block)[-1]; }

}  // namespace heapflare::recorder
