// Finds the next allocator in a program linked with --wrap: the linker calls it __real_SYMBOL.
//
// Weak, so that only the four that every program has are pulled out of libraries: pulling libc's
// pvalloc into a program with a static jemalloc would bring libc's malloc with it.
#include "lib/base/one_thread.h"
#include "lib/recorder/next_allocator.h"

extern "C" {
#define HEAPFLARE_DECLARE(member, symbol, parameters, arguments, size) \
  __attribute__((weak)) void* __real_##symbol parameters;
HEAPFLARE_ALLOCATING(HEAPFLARE_DECLARE)
#undef HEAPFLARE_DECLARE
#define HEAPFLARE_DECLARE(member, symbol, parameters, arguments) \
  __attribute__((weak)) void __real_##symbol parameters;
HEAPFLARE_FREEING(HEAPFLARE_DECLARE)
#undef HEAPFLARE_DECLARE
void* __real_calloc(size_t, size_t);
void* __real_realloc(void*, size_t);
__attribute__((weak)) int __real_posix_memalign(void**, size_t, size_t);
__attribute__((weak)) size_t __real_malloc_usable_size(void*);
__attribute__((weak)) int _dl_find_object(void*, void*);
extern __attribute__((weak)) char _r_debug;
extern __attribute__((weak)) char __libc_single_threaded;
}

namespace heapflare::recorder {

void Find(NextAllocator* found) {
  NextAllocator& table = *found;
#define HEAPFLARE_TAKE(member, symbol, parameters, arguments, size) table.member = &__real_##symbol;
  HEAPFLARE_ALLOCATING(HEAPFLARE_TAKE)
#undef HEAPFLARE_TAKE
#define HEAPFLARE_TAKE(member, symbol, parameters, arguments) table.member = &__real_##symbol;
  HEAPFLARE_FREEING(HEAPFLARE_TAKE)
#undef HEAPFLARE_TAKE
  table.calloc = &__real_calloc;
  table.realloc = &__real_realloc;
  table.posix_memalign = &__real_posix_memalign;
  table.malloc_usable_size = &__real_malloc_usable_size;
  // The linker would take these from libc where the static allocator lacks them, and libc's blocks
  // are not its own.
  table.valloc = nullptr;
  table.pvalloc = nullptr;
  if (&__libc_single_threaded != nullptr) base::one_thread = &__libc_single_threaded;
  // In one program all operators new are one allocator's: but only one that does not call malloc,
  // which is wrapped too, may be called through.
  table.new_by_malloc = true;
}

void* FindObjectLookup() { return reinterpret_cast<void*>(&_dl_find_object); }

void* FindObjectList() { return &_r_debug; }

const char* OtherMalloc() { return nullptr; }

}  // namespace heapflare::recorder
