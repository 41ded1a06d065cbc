// The allocator that the hooks pass on to: whatever comes next in link order.
//
// A table of plain function pointers, one for each hooked function, always callable: until the real
// functions are known they lead to a small arena that serves the allocations which dlsym itself
// makes. A function that the next allocator does not have is made from one that it has, never taken
// from another library: a block must go back to where it came from.
//
// C++: an allocator that brings its own operator new (jemalloc, tcmalloc, mimalloc) is called
// through it. Any other operator new (libstdc++'s) would come back to our malloc; so then new is
// served by malloc directly, and the library's operator new is called only when that fails, for its
// new_handler and its exception. Either way each allocation passes one hook.
#pragma once

#include <cstddef>

#include "lib/recorder/hook_list.h"

namespace heapflare::recorder {

struct NextAllocator {
#define HEAPFLARE_MEMBER(member, symbol, parameters, arguments, size) void*(*member)parameters;
  HEAPFLARE_ALLOCATING(HEAPFLARE_MEMBER)
#undef HEAPFLARE_MEMBER
#define HEAPFLARE_MEMBER(member, symbol, parameters, arguments) void(*member) parameters;
  HEAPFLARE_FREEING(HEAPFLARE_MEMBER)
#undef HEAPFLARE_MEMBER
  void* (*calloc)(size_t count, size_t size);
  void* (*realloc)(void* block, size_t size);
  void* (*reallocarray)(void* block, size_t count, size_t size);
  int (*posix_memalign)(void** block, size_t alignment, size_t size);
  size_t (*malloc_usable_size)(void* block);
};

extern constinit NextAllocator next __attribute__((visibility("hidden")));

// Fills the table. Runs once, in the first hook that is called or in the constructor, whichever
// comes first; on the calling thread, which may hold any lock. Calls that come meanwhile are served
// from the arena.
void FindNextAllocator();

// Finds what the table needs: by dlsym, or (linked with --wrap) by the linker. Nulls are what does
// not exist. Defined once per flavour of the library.
struct FoundFunctions {
  NextAllocator functions;
  // operator new belongs to the same library as malloc, so it does not call malloc through the
  // hook.
  bool owns_cxx;
};
void Find(FoundFunctions* found);

// glibc's lock-free lookup of the loaded object that holds an address (glibc 2.35), or nullptr.
void* FindObjectLookup();

// The loader's public list of what is loaded (struct r_debug), or nullptr.
void* FindObjectList();

// False if the program has a malloc of its own, so that the hooks are never called.
bool HooksAreCalled();

}  // namespace heapflare::recorder
