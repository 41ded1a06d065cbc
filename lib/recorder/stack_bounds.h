// Which memory a walk may read, and whether enough stack is left to walk at all.
//
// A thread's own stack reaches up to its thread control block (glibc puts it at the top), the first
// thread's to where the kernel started it. It is there as long as the thread is: so what was found
// out about it is kept, and a walk on it costs nothing. Any other stack, a fibre's, can be unmapped
// with what lies beside it as soon as nobody runs on it: it is asked for anew at every walk, and only
// as far as the walk gets. Of a signal handler's own stack the kernel tells the bounds.
#pragma once

#include <cstdint>

namespace heapflare::recorder {

// What walking a stack and booking a sample need below the hook, at most; measured by
// tests/survival/threads_test.py.
inline constexpr uint64_t kStackNeed = 8 << 10;

// Called once, on the first thread.
void RememberFirstThread();

// Sets thread_state.bounds for a walk that starts at `stack_pointer`. False: less than
// kStackNeed is left below it.
bool FindStackBounds(uint64_t stack_pointer);

// Whether the 8 bytes at `address` may be read, by the bounds that were set.
bool MayRead(uint64_t address);

}  // namespace heapflare::recorder
