// The hooks of the library that is preloaded, or linked into a dynamic program: they bear the
// functions' own names.
#include "lib/recorder/bootstrap_arena.h"
#include "lib/recorder/hook_list.h"
#include "lib/recorder/recording.h"

#define HEAPFLARE_EXPORT extern "C" __attribute__((visibility("default")))
#define HEAPFLARE_HOOK(symbol) symbol

namespace heapflare::recorder {
#include "lib/recorder/hooks.inc"
}  // namespace heapflare::recorder
