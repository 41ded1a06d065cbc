// The hooks of the library that is preloaded, or linked into a dynamic program: they bear the
// functions' own names.
#include <errno.h>

#include "lib/recorder/bootstrap_arena.h"
#include "lib/recorder/hook_list.h"
#include "lib/recorder/hooks.h"
#include "lib/recorder/recording.h"

#define HEAPFLARE_EXPORT extern "C" __attribute__((visibility("default")))
#define HEAPFLARE_EXPORT_CXX HEAPFLARE_EXPORT __attribute__((weak))
#define HEAPFLARE_HOOK(symbol) symbol

namespace heapflare::recorder {
#include "lib/recorder/hooks.inc"
}  // namespace heapflare::recorder

extern "C" {
#define HEAPFLARE_ALIAS(member, symbol, parameters, arguments, size) \
  __attribute__((alias(#symbol))) void* heapflare_own_##symbol parameters;
HEAPFLARE_CXX_ALLOCATING(HEAPFLARE_ALIAS)
#undef HEAPFLARE_ALIAS
#define HEAPFLARE_ALIAS(member, symbol, parameters, arguments) \
  __attribute__((alias(#symbol))) void heapflare_own_##symbol parameters;
HEAPFLARE_CXX_FREEING(HEAPFLARE_ALIAS)
#undef HEAPFLARE_ALIAS
}
