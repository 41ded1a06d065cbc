// The hooks of operator new and delete as the preloaded library, or libheapflare.a, exports them.
#pragma once

#include <cstddef>

#include "lib/recorder/hook_list.h"

// They are weak, since a program that links libheapflare.a may define its own.
// heapflare_own_SYMBOL is our hook in any case.
extern "C" {
#define HEAPFLARE_DECLARE(member, symbol, parameters, arguments, size) \
  __attribute__((weak)) void* symbol parameters;                       \
  __attribute__((visibility("hidden"))) void* heapflare_own_##symbol parameters;
HEAPFLARE_CXX_ALLOCATING(HEAPFLARE_DECLARE)
#undef HEAPFLARE_DECLARE
#define HEAPFLARE_DECLARE(member, symbol, parameters, arguments) \
  __attribute__((weak)) void symbol parameters;                  \
  __attribute__((visibility("hidden"))) void heapflare_own_##symbol parameters;
HEAPFLARE_CXX_FREEING(HEAPFLARE_DECLARE)
#undef HEAPFLARE_DECLARE
}
