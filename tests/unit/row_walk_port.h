// What walks need of the recorder (unwind_port.h), for tests on the first thread's stack.
#pragma once

#include <cstdint>

// How far down it may be read; to be set.
extern uint64_t stack_low;
uint64_t StackHigh();
