// The hooked functions, each listed once. Everything that has to name them all (the hooks, the next
// allocator's functions, how these are found, the list of exported symbols, the --wrap options) is
// made from these lists.
//
// X(member, symbol, (parameters), (arguments), size)   functions that return a block of `size` bytes
// X(member, symbol, (parameters), (arguments))         functions that give `block` back
//
// std::align_val_t is passed as size_t and const std::nothrow_t& as a pointer, as the ABI does.
// calloc, realloc, reallocarray, posix_memalign and malloc_usable_size have shapes of their own;
// their hooks are in hooks.h.
#pragma once

#define HEAPFLARE_C_ALLOCATING(X)                                                           \
  X(malloc, malloc, (size_t size), (size), size)                                            \
  X(aligned_alloc, aligned_alloc, (size_t alignment, size_t size), (alignment, size), size) \
  X(memalign, memalign, (size_t alignment, size_t size), (alignment, size), size)           \
  X(valloc, valloc, (size_t size), (size), size)                                            \
  X(pvalloc, pvalloc, (size_t size), (size), size)

#define HEAPFLARE_C_FREEING(X)                                                            \
  X(free, free, (void* block), (block))                                                   \
  X(free_sized, free_sized, (void* block, size_t size), (block, size))                    \
  X(free_aligned_sized, free_aligned_sized, (void* block, size_t alignment, size_t size), \
    (block, alignment, size))

#define HEAPFLARE_CXX_ALLOCATING(X)                                                              \
  X(new_plain, _Znwm, (size_t size), (size), size)                                               \
  X(new_array, _Znam, (size_t size), (size), size)                                               \
  X(new_nothrow, _ZnwmRKSt9nothrow_t, (size_t size, const void* tag), (size, tag), size)         \
  X(new_array_nothrow, _ZnamRKSt9nothrow_t, (size_t size, const void* tag), (size, tag), size)   \
  X(new_aligned, _ZnwmSt11align_val_t, (size_t size, size_t alignment), (size, alignment), size) \
  X(new_array_aligned, _ZnamSt11align_val_t, (size_t size, size_t alignment), (size, alignment), \
    size)                                                                                        \
  X(new_aligned_nothrow, _ZnwmSt11align_val_tRKSt9nothrow_t,                                     \
    (size_t size, size_t alignment, const void* tag), (size, alignment, tag), size)              \
  X(new_array_aligned_nothrow, _ZnamSt11align_val_tRKSt9nothrow_t,                               \
    (size_t size, size_t alignment, const void* tag), (size, alignment, tag), size)

#define HEAPFLARE_CXX_FREEING(X)                                                                \
  X(delete_plain, _ZdlPv, (void* block), (block))                                               \
  X(delete_array, _ZdaPv, (void* block), (block))                                               \
  X(delete_sized, _ZdlPvm, (void* block, size_t size), (block, size))                           \
  X(delete_array_sized, _ZdaPvm, (void* block, size_t size), (block, size))                     \
  X(delete_nothrow, _ZdlPvRKSt9nothrow_t, (void* block, const void* tag), (block, tag))         \
  X(delete_array_nothrow, _ZdaPvRKSt9nothrow_t, (void* block, const void* tag), (block, tag))   \
  X(delete_aligned, _ZdlPvSt11align_val_t, (void* block, size_t alignment), (block, alignment)) \
  X(delete_array_aligned, _ZdaPvSt11align_val_t, (void* block, size_t alignment),               \
    (block, alignment))                                                                         \
  X(delete_sized_aligned, _ZdlPvmSt11align_val_t, (void* block, size_t size, size_t alignment), \
    (block, size, alignment))                                                                   \
  X(delete_array_sized_aligned, _ZdaPvmSt11align_val_t,                                         \
    (void* block, size_t size, size_t alignment), (block, size, alignment))                     \
  X(delete_aligned_nothrow, _ZdlPvSt11align_val_tRKSt9nothrow_t,                                \
    (void* block, size_t alignment, const void* tag), (block, alignment, tag))                  \
  X(delete_array_aligned_nothrow, _ZdaPvSt11align_val_tRKSt9nothrow_t,                          \
    (void* block, size_t alignment, const void* tag), (block, alignment, tag))

#define HEAPFLARE_ALLOCATING(X) HEAPFLARE_C_ALLOCATING(X) HEAPFLARE_CXX_ALLOCATING(X)
#define HEAPFLARE_FREEING(X) HEAPFLARE_C_FREEING(X) HEAPFLARE_CXX_FREEING(X)
