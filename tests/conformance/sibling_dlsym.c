// Another preloaded library, which stands between programs and dlsym, and allocates when it is
// called.
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

void* dlsym(void* restrict handle, const char* restrict name) {
  static void* (*next)(void*, const char*);
  if (next == NULL) *(void**)&next = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5");
  char* const copy = strdup(name);
  char* const more = realloc(malloc(10), 1000);
  void* const zeroes = calloc(10, 10);
  // Not a jump: RTLD_NEXT means the next after this library.
  void* volatile found = next(handle, copy);
  free(copy);
  free(more);
  free(zeroes);
  return found;
}
