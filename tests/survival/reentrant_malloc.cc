// An allocator that a signal handler may interrupt anywhere and enter again, and that a thread may
// leave for good in the middle: only with such a one does a signal handler's allocation reach every
// instruction of the recorder, since libc's malloc deadlocks with itself. Preloaded behind the recorder.
//
// Blocks of one of 24 sizes (powers of two) from a lock-free list each; memory is never given back. The
// upper 16 bits of a list's head count its changes (ABA).
#include <errno.h>
#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

constexpr int kClasses = 24;
constexpr size_t kHeader = 16;
constexpr uint64_t kPointer = (uint64_t{1} << 48) - 1;

struct Block {
  std::atomic<uint64_t> next;
};

constinit std::atomic<uint64_t> lists[kClasses] = {};

int ClassOf(size_t bytes) {
  int size_class = 0;
  while (size_class < kClasses && (size_t{32} << size_class) < bytes) ++size_class;
  return size_class;
}

void* Map(size_t bytes) {
  void* const memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

void* Cut(int size_class) {
  const size_t bytes = size_t{32} << size_class;
  if (bytes >= 64 << 10) return Map(bytes);
  // A piece of a mapping of its own, the rest of which goes to the list.
  constexpr size_t kPiece = 256 << 10;
  char* const piece = static_cast<char*>(Map(kPiece));
  if (piece == nullptr) return nullptr;
  for (size_t at = bytes; at + bytes <= kPiece; at += bytes) {
    auto* block = reinterpret_cast<Block*>(piece + at);
    uint64_t head = lists[size_class].load();
    uint64_t next = 0;
    do {
      block->next.store(head & kPointer);
      next = ((head >> 48) + 1) << 48 | reinterpret_cast<uintptr_t>(block);
    } while (!lists[size_class].compare_exchange_weak(head, next));
  }
  return piece;
}

void* Take(int size_class) {
  uint64_t head = lists[size_class].load();
  for (;;) {
    auto* block = reinterpret_cast<Block*>(head & kPointer);
    if (block == nullptr) return Cut(size_class);
    const uint64_t next = ((head >> 48) + 1) << 48 | block->next.load();
    if (lists[size_class].compare_exchange_weak(head, next)) return block;
  }
}

// In front of each block: the start of what was taken, and its class.
struct Header {
  void* taken;
  uint64_t size_class;
};
Header* HeaderOf(void* block) {
  return reinterpret_cast<Header*>(static_cast<char*>(block) - kHeader);
}
size_t Room(void* block) {
  const Header* header = HeaderOf(block);
  return (size_t{32} << header->size_class) -
         static_cast<size_t>(static_cast<char*>(block) - static_cast<char*>(header->taken));
}

void* Allocate(size_t alignment, size_t bytes) {
  if (bytes > size_t{1} << 30 || alignment > size_t{1} << 20) {
    errno = ENOMEM;
    return nullptr;
  }
  const int size_class = ClassOf(bytes + kHeader + alignment);
  void* const taken = Take(size_class);
  if (taken == nullptr) {
    errno = ENOMEM;
    return nullptr;
  }
  const uintptr_t at =
      (reinterpret_cast<uintptr_t>(taken) + kHeader + alignment - 1) / alignment * alignment;
  void* const block = reinterpret_cast<void*>(at);
  *HeaderOf(block) = {taken, static_cast<uint64_t>(size_class)};
  return block;
}

}  // namespace

extern "C" {

void* malloc(size_t bytes) { return Allocate(16, bytes); }

void free(void* block) {
  if (block == nullptr) return;
  const Header header = *HeaderOf(block);
  auto* taken = static_cast<Block*>(header.taken);
  uint64_t head = lists[header.size_class].load();
  uint64_t next = 0;
  do {
    taken->next.store(head & kPointer);
    next = ((head >> 48) + 1) << 48 | reinterpret_cast<uintptr_t>(taken);
  } while (!lists[header.size_class].compare_exchange_weak(head, next));
}

void* calloc(size_t count, size_t size) {
  size_t bytes = 0;
  if (__builtin_mul_overflow(count, size, &bytes)) {
    errno = ENOMEM;
    return nullptr;
  }
  void* const block = Allocate(16, bytes);
  if (block != nullptr) memset(block, 0, bytes);
  return block;
}

void* realloc(void* old, size_t bytes) {
  void* const block = Allocate(16, bytes);
  if (block == nullptr || old == nullptr) return block;
  memcpy(block, old, Room(old) < bytes ? Room(old) : bytes);
  free(old);
  return block;
}

int posix_memalign(void** block, size_t alignment, size_t bytes) {
  *block = Allocate(alignment, bytes);
  return *block == nullptr ? ENOMEM : 0;
}

void* memalign(size_t alignment, size_t bytes) {
  return Allocate(alignment < 16 ? 16 : alignment, bytes);
}
void* aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }
size_t malloc_usable_size(void* block) { return block == nullptr ? 0 : Room(block); }

}  // extern "C"
