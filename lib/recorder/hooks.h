// The hooks as the preloaded library exports them: functions of the malloc family and operator new
// and delete.
#pragma once

#include <cstddef>

// Not libc's declaration: see hooks.inc.
extern "C" void* malloc(size_t size);
