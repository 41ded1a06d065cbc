// Finds the next allocator in a dynamic program: by dlsym(RTLD_NEXT), in the objects after this one
// in link order.
#include <dlfcn.h>
#include <link.h>
#include <sys/auxv.h>

#include "lib/base/glibc_versions.h"
#include "lib/base/one_thread.h"
#include "lib/recorder/hooks.h"
#include "lib/recorder/next_allocator.h"

// The hook: not libc's declaration, see hooks.inc.
extern "C" void* malloc(size_t size);

namespace heapflare::recorder {
namespace {

// Where the object that holds `address` is loaded.
const void* Object(const void* address) {
  Dl_info info = {};
  return address != nullptr && dladdr(address, &info) != 0 ? info.dli_fbase : nullptr;
}

// libc's own dlsym, called from here. A preloaded library may define another one: RTLD_NEXT would
// then mean the next after that library, which can be our own hook.
void* LibcsDlsym(void* handle, const char* symbol) {
#if defined(__x86_64__)
  static constexpr char kVersion[] = "GLIBC_2.2.5";
#else
  static constexpr char kVersion[] = "GLIBC_2.17";
#endif
  using Dlsym = void* (*)(void*, const char*);
  static const auto libcs = reinterpret_cast<Dlsym>(dlvsym(RTLD_DEFAULT, "dlsym", kVersion));
  void* volatile found = libcs != nullptr ? libcs(handle, symbol) : dlsym(handle, symbol);
  return found;
}

template <typename Function>
void Look(const char* symbol, Function** function) {
  *function = reinterpret_cast<Function*>(LibcsDlsym(RTLD_NEXT, symbol));
}

template <typename Function>
bool Is(const void* object, Function* function) {
  return function != nullptr && Object(reinterpret_cast<const void*>(function)) == object;
}

// Keeps the function only if it belongs to the allocator `object`: libc's pvalloc is no use to
// jemalloc's free.
template <typename Function>
void KeepOnlyOf(const void* object, Function** function) {
  if (!Is(object, *function)) *function = nullptr;
}

// Whether a program's calls of `symbol` reach `hook`.
template <typename Function>
bool ComesFirst(const char* symbol, Function* hook) {
  void* const first = LibcsDlsym(RTLD_DEFAULT, symbol);
  // Null: nothing but the program itself can call it.
  if (first == nullptr || first == reinterpret_cast<void*>(hook)) return true;
  // A program at a fixed address that takes the function's address has an entry of its own for it,
  // which leads here: an undefined symbol with a value.
  Dl_info info = {};
  void* entry = nullptr;
  return dladdr1(first, &info, &entry, RTLD_DL_SYMENT) != 0 && entry != nullptr &&
         static_cast<const ElfW(Sym)*>(entry)->st_shndx == SHN_UNDEF;
}

// The same for a weak hook: in a program that links us, `linked` is what the linker chose.
template <typename Function>
bool IsOurs(const char* symbol, Function* linked, Function* hook) {
  return linked == hook && ComesFirst(symbol, hook);
}

bool SomeNewOrDeleteIsReplaced() {
#define HEAPFLARE_LOOK(member, symbol, parameters, arguments, size) \
  if (!IsOurs(#symbol, symbol, heapflare_own_##symbol)) return true;
  HEAPFLARE_CXX_ALLOCATING(HEAPFLARE_LOOK)
#undef HEAPFLARE_LOOK
#define HEAPFLARE_LOOK(member, symbol, parameters, arguments) \
  if (!IsOurs(#symbol, symbol, heapflare_own_##symbol)) return true;
  HEAPFLARE_CXX_FREEING(HEAPFLARE_LOOK)
#undef HEAPFLARE_LOOK
  return false;
}

// Whose the operators new and delete in the table are, see next_allocator.h.
void FindOwnersOfNew(const void* allocator, NextAllocator* table) {
  const bool allocators = Is(allocator, table->new_plain);
  if (table->new_plain == nullptr) {
    // No runtime so far; it may be loaded later.
    table->new_by_malloc = true;
  } else if (!allocators && !SomeNewOrDeleteIsReplaced()) {
    // The runtime, and nothing else, has exceptions too.
    const void* const runtime = Object(LibcsDlsym(RTLD_NEXT, "__cxa_get_globals"));
    table->new_by_malloc = Is(runtime, table->new_plain);
  }
#define HEAPFLARE_MARK(member, symbol, parameters, arguments, size)                 \
  table->member##_comes_back = !table->new_by_malloc && table->member != nullptr && \
                               !(allocators && Is(allocator, table->member));
  HEAPFLARE_CXX_ALLOCATING(HEAPFLARE_MARK)
#undef HEAPFLARE_MARK
}

}  // namespace

void Find(NextAllocator* found) {
  NextAllocator& table = *found;
#define HEAPFLARE_LOOK(member, symbol, parameters, arguments, size) Look(#symbol, &table.member);
  HEAPFLARE_ALLOCATING(HEAPFLARE_LOOK)
#undef HEAPFLARE_LOOK
#define HEAPFLARE_LOOK(member, symbol, parameters, arguments) Look(#symbol, &table.member);
  HEAPFLARE_FREEING(HEAPFLARE_LOOK)
#undef HEAPFLARE_LOOK
  // Of the program's, if it has a copy.
  if (const void* const variable = LibcsDlsym(RTLD_DEFAULT, "__libc_single_threaded")) {
    base::one_thread = static_cast<const char*>(variable);
  }
  Look("calloc", &table.calloc);
  Look("realloc", &table.realloc);
  Look("posix_memalign", &table.posix_memalign);
  Look("malloc_usable_size", &table.malloc_usable_size);

  // Of an allocator that lacks some functions, these are made from others that it has. (What is
  // next may also be a library that wraps malloc alone: then the rest is libc's, as without us.)
  const void* const allocator = Object(reinterpret_cast<const void*>(table.malloc));
  const bool aligns = Is(allocator, table.memalign) || Is(allocator, table.posix_memalign);
  if (aligns) {
    if (Is(allocator, table.posix_memalign)) KeepOnlyOf(allocator, &table.memalign);
    KeepOnlyOf(allocator, &table.aligned_alloc);
    KeepOnlyOf(allocator, &table.valloc);
    KeepOnlyOf(allocator, &table.pvalloc);
  }
  void* (*reallocarray)(void*, size_t, size_t) = nullptr;
  Look("reallocarray", &reallocarray);
  table.has_reallocarray = Is(allocator, reallocarray);
  table.is_glibc =
      allocator != nullptr && allocator == Object(LibcsDlsym(RTLD_DEFAULT, "gnu_get_libc_version"));
  table.data_of_libc = LibcsDlsym(RTLD_DEFAULT, "_IO_2_1_stdout_");
  if (Is(allocator, table.free)) {
    KeepOnlyOf(allocator, &table.free_sized);
    KeepOnlyOf(allocator, &table.free_aligned_sized);
  }
  FindOwnersOfNew(allocator, &table);
}

void* FindObjectLookup() { return LibcsDlsym(RTLD_DEFAULT, "_dl_find_object"); }

void* FindObjectList() { return LibcsDlsym(RTLD_DEFAULT, "_r_debug"); }

const char* OtherMalloc() {
  if (ComesFirst("malloc", malloc)) return nullptr;
  Dl_info info = {};
  const void* const first = LibcsDlsym(RTLD_DEFAULT, "malloc");
  const bool in_program =
      Object(first) == Object(reinterpret_cast<const void*>(getauxval(AT_ENTRY)));
  return in_program || dladdr(first, &info) == 0 ? "" : info.dli_fname;
}

}  // namespace heapflare::recorder
