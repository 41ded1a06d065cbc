// Another preloaded library that wraps malloc, as leak detectors and tracers do: looks the next
// malloc up at its first call, and calls a function of the program's, which may throw.
#include <dlfcn.h>

#include <cstddef>

extern "C" {

void (*sibling_on_malloc)(size_t size) = nullptr;
long sibling_calls = 0;

void* malloc(size_t size) {
  using Malloc = void* (*)(size_t);
  static Malloc next;
  if (next == nullptr) next = reinterpret_cast<Malloc>(dlsym(RTLD_NEXT, "malloc"));
  ++sibling_calls;
  if (sibling_on_malloc != nullptr) sibling_on_malloc(size);
  return next(size);
}

}  // extern "C"
