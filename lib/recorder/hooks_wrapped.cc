// The hooks of a program that is linked with --wrap=SYMBOL for each of them: the linker sends its
// calls of SYMBOL here.
#include <errno.h>

#include "lib/recorder/bootstrap_arena.h"
#include "lib/recorder/hook_list.h"
#include "lib/recorder/recording.h"

#define HEAPFLARE_EXPORT extern "C" __attribute__((visibility("default")))
#define HEAPFLARE_EXPORT_CXX HEAPFLARE_EXPORT
#define HEAPFLARE_HOOK(symbol) __wrap_##symbol

namespace heapflare::recorder {
#include "lib/recorder/hooks.inc"
}  // namespace heapflare::recorder
