// Which part of the current stack may be read: a walk must never leave it.
//
// A thread's stack reaches up to its thread control block (glibc puts it at the top), the first
// thread's to where the kernel started it. Any other stack, a fibre's or a signal handler's, is
// looked at page by page. What was found out is kept per thread, so a walk on the stack of the last
// time costs nothing.
#pragma once

#include <cstdint>

namespace heapflare::recorder {

// Sets thread_state.stack_low and stack_high around `stack_pointer`. False: not enough room is left
// below it to unwind.
bool FindStackBounds(uint64_t stack_pointer);

}  // namespace heapflare::recorder
