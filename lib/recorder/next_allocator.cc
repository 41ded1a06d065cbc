#include "lib/recorder/next_allocator.h"

#include <errno.h>

#include <atomic>
#include <cstdint>

#include "lib/recorder/bootstrap_arena.h"
#include "lib/recorder/own_frames.h"

namespace heapflare::recorder {
namespace {

enum State : int { kUnknown, kFinding, kFound };
constinit std::atomic<int> state = kUnknown;

// The C++ runtime's own operators, for when malloc fails.
constinit NextAllocator runtime = {};

constexpr size_t kPage = 4096;

// --- Until the functions are found ---

bool Found() {
  FindNextAllocator();
  return state.load(std::memory_order_acquire) == kFound;
}

#define HEAPFLARE_BOOT(member, symbol, parameters, arguments, size) \
  void* Boot_##member parameters { return Found() ? next.member arguments : ArenaAllocate(size); }
HEAPFLARE_ALLOCATING(HEAPFLARE_BOOT)
#undef HEAPFLARE_BOOT

#define HEAPFLARE_BOOT(member, symbol, parameters, arguments) \
  void Boot_##member parameters {                             \
    if (Found()) next.member arguments;                       \
  }
HEAPFLARE_FREEING(HEAPFLARE_BOOT)
#undef HEAPFLARE_BOOT

void* BootCalloc(size_t count, size_t size) {
  if (Found()) return next.calloc(count, size);
  size_t bytes = 0;
  return __builtin_mul_overflow(count, size, &bytes) ? nullptr : ArenaAllocate(bytes);
}
// Blocks of the arena never reach these: the hook moves them.
void* BootRealloc(void* block, size_t size) {
  return Found() ? next.realloc(block, size) : ArenaAllocate(size);
}
int BootPosixMemalign(void** block, size_t alignment, size_t size) {
  if (Found()) return next.posix_memalign(block, alignment, size);
  *block = ArenaAllocate(size);
  return *block == nullptr ? ENOMEM : 0;
}
size_t BootUsableSize(void* block) { return Found() ? next.malloc_usable_size(block) : 0; }

// --- Substitutes for what the next allocator lacks ---

void* MemalignByPosix(size_t alignment, size_t size) {
  void* block = nullptr;
  const size_t least = alignment < sizeof(void*) ? sizeof(void*) : alignment;
  const int error = next.posix_memalign(&block, least, size);
  if (error == 0) return block;
  errno = error;
  return nullptr;
}
void* VallocByMemalign(size_t size) { return next.memalign(kPage, size); }
void* PvallocByMemalign(size_t size) {
  size_t rounded = 0;
  if (__builtin_add_overflow(size, kPage - 1, &rounded)) {
    errno = ENOMEM;
    return nullptr;
  }
  rounded = rounded / kPage * kPage;
  return next.memalign(kPage, rounded == 0 ? kPage : rounded);
}
size_t NoUsableSize(void* /*block*/) { return 0; }

void* Plain(size_t size) { return next.malloc(size == 0 ? 1 : size); }
void* Plain(size_t size, const void* /*tag*/) { return Plain(size); }
void* Plain(size_t size, size_t alignment) {
  return next.memalign(alignment, size == 0 ? 1 : size);
}
void* Plain(size_t size, size_t alignment, const void* /*tag*/) { return Plain(size, alignment); }

// operator new and delete on top of malloc and free, for the member `kMember` of the table.
template <auto kMember>
struct ByMalloc;

template <typename... Arguments, void* (*NextAllocator::*kMember)(Arguments...)>
struct ByMalloc<kMember> {
  [[HEAPFLARE_CALLS_ALLOCATOR]] static void* New(Arguments... arguments) {
    if (void* block = Plain(arguments...)) return block;
    if (runtime.*kMember == nullptr) {
      // The C++ runtime was loaded after us. Looking it up now is slow and takes the loader lock;
      // but the process is out of memory, and its new_handler and bad_alloc are in there.
      Find(&runtime);
    }
    return runtime.*kMember == nullptr ? nullptr : (runtime.*kMember)(arguments...);
  }
};

template <typename... Arguments, void (*NextAllocator::*kMember)(void*, Arguments...)>
struct ByMalloc<kMember> {
  static void Delete(void* block, Arguments... /*arguments*/) { next.free(block); }
};

// The forms of operator new with an alignment. jemalloc's call aligned_alloc through the symbol that
// is hooked, and each block would be seen twice: so no allocator's are used.
constexpr bool TakesAlignment(void* (*NextAllocator::*)(size_t)) { return false; }
constexpr bool TakesAlignment(void* (*NextAllocator::*)(size_t, const void*)) { return false; }
template <typename... Rest>
constexpr bool TakesAlignment(void* (*NextAllocator::*)(size_t, size_t, Rest...)) {
  return true;
}

void Complete(NextAllocator* table) {
  if (table->memalign == nullptr) table->memalign = MemalignByPosix;
  if (table->aligned_alloc == nullptr) table->aligned_alloc = table->memalign;
  if (table->valloc == nullptr) table->valloc = VallocByMemalign;
  if (table->pvalloc == nullptr) table->pvalloc = PvallocByMemalign;
  if (table->malloc_usable_size == nullptr) table->malloc_usable_size = NoUsableSize;
#define HEAPFLARE_SUBSTITUTE(member, symbol, parameters, arguments) \
  if (table->member == nullptr) table->member = ByMalloc<&NextAllocator::member>::Delete;
  HEAPFLARE_C_FREEING(HEAPFLARE_SUBSTITUTE)
#undef HEAPFLARE_SUBSTITUTE
#define HEAPFLARE_SUBSTITUTE(member, symbol, parameters, arguments, size)        \
  if (table->new_by_malloc || table->member == nullptr ||                        \
      (TakesAlignment(&NextAllocator::member) && !table->member##_comes_back)) { \
    table->member = ByMalloc<&NextAllocator::member>::New;                       \
  }
  HEAPFLARE_CXX_ALLOCATING(HEAPFLARE_SUBSTITUTE)
#undef HEAPFLARE_SUBSTITUTE
#define HEAPFLARE_SUBSTITUTE(member, symbol, parameters, arguments) \
  if (table->new_by_malloc || table->member == nullptr) {           \
    table->member = ByMalloc<&NextAllocator::member>::Delete;       \
  }
  HEAPFLARE_CXX_FREEING(HEAPFLARE_SUBSTITUTE)
#undef HEAPFLARE_SUBSTITUTE
}

}  // namespace

constinit NextAllocator next = {
#define HEAPFLARE_BOOT(member, symbol, parameters, arguments, size) .member = Boot_##member,
    HEAPFLARE_ALLOCATING(HEAPFLARE_BOOT)
#undef HEAPFLARE_BOOT
#define HEAPFLARE_BOOT(member, symbol, parameters, arguments) .member = Boot_##member,
        HEAPFLARE_FREEING(HEAPFLARE_BOOT)
#undef HEAPFLARE_BOOT
            .calloc = BootCalloc,
    .realloc = BootRealloc,
    .has_reallocarray = false,
    .posix_memalign = BootPosixMemalign,
    .malloc_usable_size = BootUsableSize,
};

void FindNextAllocator() {
  int expected = kUnknown;
  if (!state.compare_exchange_strong(expected, kFinding)) return;
  NextAllocator found = {};
  Find(&found);
  runtime = found;
  Complete(&found);
  next = found;
  state.store(kFound, std::memory_order_release);
}

}  // namespace heapflare::recorder
