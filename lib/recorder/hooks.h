// The hooks as the preloaded library exports them: functions of the malloc family and operator new
// and delete.
#pragma once

#include <cstddef>

#include "lib/recorder/hook_list.h"

// Not libc's declarations: see hooks.inc.
extern "C" {
#define HEAPFLARE_DECLARE(member, symbol, parameters, arguments, size) void* symbol parameters;
HEAPFLARE_ALLOCATING(HEAPFLARE_DECLARE)
#undef HEAPFLARE_DECLARE
#define HEAPFLARE_DECLARE(member, symbol, parameters, arguments) void symbol parameters;
HEAPFLARE_FREEING(HEAPFLARE_DECLARE)
#undef HEAPFLARE_DECLARE
}
