#include "lib/recorder/stale_contents.h"

#include <algorithm>
#include <cstring>

#include "lib/recorder/next_allocator.h"

namespace heapflare::recorder {
namespace {

bool IsMappedByItself(const void* block) {
  return next.is_glibc && (ChunkWord(block) & kChunkMapped) != 0;
}

// glibc lets a block's owner use more than was asked for. Others are not asked: tcmalloc allocates
// before it answers.
size_t Room(void* block, size_t bytes) {
  return next.is_glibc ? next.malloc_usable_size(block) : bytes;
}

}  // namespace

void ClearBlock(void* block, size_t bytes, size_t from) {
  // The kernel's zeroes.
  if (IsMappedByItself(block)) return;
  const size_t room = Room(block, bytes);
  if (from >= room) return;
  memset(static_cast<char*>(block) + from, 0, std::min(room - from, kMostCleared));
}

void MarkFreed(void* block) {
  if (!next.is_glibc || IsMappedByItself(block)) return;
  static_cast<uint64_t*>(block)[kFreedMarkAt / sizeof(uint64_t)] =
      FreedMark(reinterpret_cast<uint64_t>(block));
}

void* ReallocateCleanly(void* old, size_t old_bytes, size_t bytes) {
  if (bytes == 0) {
    MarkFreed(old);
    return next.realloc(old, bytes);
  }
  const size_t room = Room(old, old_bytes);
  if (!next.is_glibc) {
    void* const block = next.realloc(old, bytes);
    if (block != nullptr) ClearBlock(block, bytes, room);
    return block;
  }
  if (IsMappedByItself(old)) {
    void* const block = next.realloc(old, bytes);
    // Grown by the kernel; or it became so small that it was copied into the heap.
    if (block != nullptr && !IsMappedByItself(block))
      ClearBlock(block, bytes, std::min(bytes, room));
    return block;
  }
  if (bytes <= room) {
    // What is cut off is freed by the allocator itself, without a mark. (It never fails to shrink.)
    memset(static_cast<char*>(old) + bytes, 0, room - bytes);
    return next.realloc(old, bytes);
  }
  void* const block = next.malloc(bytes);
  if (block == nullptr) return nullptr;
  memcpy(block, old, room);
  ClearBlock(block, bytes, room);
  MarkFreed(old);
  next.free(old);
  return block;
}

}  // namespace heapflare::recorder
