// The allocator that the hooks pass on to: whatever comes next in link order.
//
// A table of plain function pointers, one for each hooked function, always callable: until the real
// functions are known they lead to a small arena that serves the allocations which dlsym itself
// makes. A function that the next allocator does not have is made from one that it has, rather than
// taken from another library: a block must go back to where it came from.
//
// Whose operator new comes next decides how ours works:
//   - the C++ runtime's (libstdc++, libc++) would come back to our malloc. So malloc serves it
//     directly; the runtime is called when that fails, for its new_handler and its exception.
//   - the allocator's own (jemalloc, tcmalloc, mimalloc) is called; but malloc serves the forms
//     with an alignment, since jemalloc's call aligned_alloc. Forms that it lacks are the runtime's,
//     and come back to another hook.
//   - the program or a library has replaced some of the operators, and the runtime makes the other
//     forms of these: new (std::nothrow) must reach the program's new, since the program's delete
//     will get the block. All are passed on, and come back to our malloc.
// What comes back is recorded by the last hook that it passes, so exactly once.
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
  bool has_reallocarray;  // of its own, which is not called; see hooks.inc
  int (*posix_memalign)(void** block, size_t alignment, size_t size);
  size_t (*malloc_usable_size)(void* block);
  // It is glibc's malloc, whose blocks look as stale_contents.h and leak_memory.h know them.
  bool is_glibc = false;
  // An object in libc's own data, where that allocator has its lists too; nullptr if it is not known.
  const void* data_of_libc = nullptr;
  // operator new and delete are the runtime's.
  bool new_by_malloc = false;
  // Whether that form of operator new comes back to another hook.
#define HEAPFLARE_MEMBER(member, symbol, parameters, arguments, size) \
  bool member##_comes_back = false;
  HEAPFLARE_CXX_ALLOCATING(HEAPFLARE_MEMBER)
#undef HEAPFLARE_MEMBER
};

extern constinit NextAllocator next __attribute__((visibility("hidden")));

// Fills the table. Runs once, in the first hook that is called or in the constructor, whichever
// comes first; on the calling thread, which may hold any lock. Calls that come meanwhile are served
// from the arena.
void FindNextAllocator();

// Finds what the table needs: by dlsym, or (linked with --wrap) by the linker. Nulls are what does
// not exist. Defined once per flavour of the library.
void Find(NextAllocator* table);

// glibc's lock-free lookup of the loaded object that holds an address (glibc 2.35), or nullptr.
void* FindObjectLookup();

// The loader's public list of what is loaded (struct r_debug), or nullptr.
void* FindObjectList();

// Who else's malloc the program calls, so that the hooks are never called: nullptr, "" for the
// program itself, or the path of a library.
const char* OtherMalloc();

}  // namespace heapflare::recorder
