// An allocator with operator new and delete of its own, but not with every form of them (as
// jemalloc before 5.3, which had no aligned ones), and without valloc, pvalloc and reallocarray.
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <new>

extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);

void* malloc(size_t size) { return __libc_malloc(size); }
void* calloc(size_t count, size_t size) { return __libc_calloc(count, size); }
void* realloc(void* block, size_t size) { return __libc_realloc(block, size); }
void* memalign(size_t alignment, size_t size) { return __libc_memalign(alignment, size); }
void free(void* block) { __libc_free(block); }
}

void* operator new(size_t size) {
  if (void* const block = __libc_malloc(size)) return block;
  throw std::bad_alloc();
}
void operator delete(void* block) noexcept { __libc_free(block); }
void operator delete(void* block, size_t) noexcept { __libc_free(block); }
