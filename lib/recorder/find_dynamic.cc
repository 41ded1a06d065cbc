// Finds the next allocator in a dynamic program: by dlsym(RTLD_NEXT), in the objects after this one
// in link order.
#include <dlfcn.h>

#include "lib/base/glibc_versions.h"
#include "lib/recorder/hooks.h"
#include "lib/recorder/next_allocator.h"

namespace heapflare::recorder {
namespace {

// Where the object that holds `address` is loaded.
const void* Object(const void* address) {
  Dl_info info = {};
  return address != nullptr && dladdr(address, &info) != 0 ? info.dli_fbase : nullptr;
}

template <typename Function>
void Look(const char* symbol, Function** function) {
  *function = reinterpret_cast<Function*>(dlsym(RTLD_NEXT, symbol));
}

// Keeps the function only if it belongs to the allocator `object`: libc's pvalloc is no use to
// jemalloc's free.
template <typename Function>
void LookIn(const void* object, const char* symbol, Function** function) {
  Look(symbol, function);
  if (Object(reinterpret_cast<const void*>(*function)) != object) *function = nullptr;
}

}  // namespace

void Find(FoundFunctions* found) {
  NextAllocator& table = found->functions;
  Look("malloc", &table.malloc);
  const void* const allocator = Object(reinterpret_cast<const void*>(table.malloc));
#define HEAPFLARE_LOOK(member, symbol, parameters, arguments, size) \
  LookIn(allocator, #symbol, &table.member);
  HEAPFLARE_C_ALLOCATING(HEAPFLARE_LOOK)
#undef HEAPFLARE_LOOK
#define HEAPFLARE_LOOK(member, symbol, parameters, arguments) \
  LookIn(allocator, #symbol, &table.member);
  HEAPFLARE_C_FREEING(HEAPFLARE_LOOK)
#undef HEAPFLARE_LOOK
  LookIn(allocator, "calloc", &table.calloc);
  LookIn(allocator, "realloc", &table.realloc);
  LookIn(allocator, "reallocarray", &table.reallocarray);
  LookIn(allocator, "posix_memalign", &table.posix_memalign);
  LookIn(allocator, "malloc_usable_size", &table.malloc_usable_size);

#define HEAPFLARE_LOOK(member, symbol, parameters, arguments, size) Look(#symbol, &table.member);
  HEAPFLARE_CXX_ALLOCATING(HEAPFLARE_LOOK)
#undef HEAPFLARE_LOOK
#define HEAPFLARE_LOOK(member, symbol, parameters, arguments) Look(#symbol, &table.member);
  HEAPFLARE_CXX_FREEING(HEAPFLARE_LOOK)
#undef HEAPFLARE_LOOK
  found->owns_cxx = table.new_plain != nullptr &&
                    Object(reinterpret_cast<const void*>(table.new_plain)) == allocator;
}

void* FindObjectLookup() { return dlsym(RTLD_DEFAULT, "_dl_find_object"); }

void* FindObjectList() { return dlsym(RTLD_DEFAULT, "_r_debug"); }

bool HooksAreCalled() { return dlsym(RTLD_DEFAULT, "malloc") == reinterpret_cast<void*>(&malloc); }

}  // namespace heapflare::recorder
