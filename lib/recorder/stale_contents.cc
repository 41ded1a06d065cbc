#include "lib/recorder/stale_contents.h"

#include <algorithm>
#include <cstring>

#include "lib/recorder/next_allocator.h"

namespace heapflare::recorder {
namespace {

bool IsMappedByItself(const void* block) {
  return next.is_glibc && (ChunkWord(block) & kChunkMapped) != 0;
}

}  // namespace

void ClearBlock(void* block, size_t from) {
  // The kernel's zeroes.
  if (IsMappedByItself(block)) return;
  const size_t room = next.malloc_usable_size(block);
  if (from >= room) return;
  memset(static_cast<char*>(block) + from, 0, std::min(room - from, kMostCleared));
}

void MarkFreed(void* block) {
  if (!next.is_glibc || IsMappedByItself(block)) return;
  static_cast<uint64_t*>(block)[kFreedMarkAt / sizeof(uint64_t)] =
      FreedMark(reinterpret_cast<uint64_t>(block));
}

void* ReallocateCleanly(void* old, size_t bytes) {
  if (bytes == 0) {
    MarkFreed(old);
    return next.realloc(old, bytes);
  }
  const size_t room = next.malloc_usable_size(old);
  if (!next.is_glibc) {
    void* const block = next.realloc(old, bytes);
    if (block != nullptr) ClearBlock(block, room);
    return block;
  }
  if (IsMappedByItself(old)) {
    void* const block = next.realloc(old, bytes);
    // Grown by the kernel; or it became so small that it was copied into the heap.
    if (block != nullptr && !IsMappedByItself(block)) ClearBlock(block, std::min(bytes, room));
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
  ClearBlock(block, room);
  MarkFreed(old);
  next.free(old);
  return block;
}

}  // namespace heapflare::recorder
