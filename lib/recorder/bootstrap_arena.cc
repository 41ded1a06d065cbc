#include "lib/recorder/bootstrap_arena.h"

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace heapflare::recorder {
namespace {

constexpr size_t kArenaBytes = 128 << 10;
constexpr size_t kAlignment = 64;

alignas(4096) constinit std::byte arena[kArenaBytes];
constinit std::atomic<size_t> arena_used = 0;

}  // namespace

void* ArenaAllocate(size_t bytes) {
  // A block is preceded by its size, in a cache line of its own.
  const size_t room = (bytes + 2 * kAlignment - 1) / kAlignment * kAlignment;
  if (bytes > kArenaBytes || room > kArenaBytes) return nullptr;
  const size_t at = arena_used.fetch_add(room, std::memory_order_relaxed);
  if (at + room > kArenaBytes) return nullptr;
  std::byte* const block = arena + at + kAlignment;
  *reinterpret_cast<size_t*>(arena + at) = bytes;
  AddUsedArena(&free_filter);
  return block;
}

void AddUsedArena(FreeFilter* filter) {
  const size_t used = std::min(arena_used.load(std::memory_order_relaxed), kArenaBytes);
  for (size_t page = 0; page < used; page += 4096) filter->Add(arena + page);
}

bool InArena(const void* block) { return block >= arena && block < arena + kArenaBytes; }

const void* ArenaStart() { return arena; }

size_t ArenaBytes() { return kArenaBytes; }

size_t ArenaBlockSize(const void* block) {
  return *reinterpret_cast<const size_t*>(static_cast<const std::byte*>(block) - kAlignment);
}

}  // namespace heapflare::recorder
