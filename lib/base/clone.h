// clone(2) with a stack of its own, without libc.
#pragma once

#include <cstdint>

namespace heapflare::base {

struct CloneOptions {
  unsigned long flags;
  void* stack_top;                 // aligned to 16 bytes; the child starts below
  int* id = nullptr;               // for CLONE_PARENT_SETTID and CLONE_CHILD_CLEARTID
  void* thread_pointer = nullptr;  // for CLONE_SETTLS
  void (*run)(void* argument);     // must not return
  void* argument = nullptr;
};

// The child runs `run`, with the signal mask of its maker. The child's id, or negative errno.
long CloneOnStack(const CloneOptions& options);

// fork(2), but libc knows nothing of it: no handlers run, and the child may only do what a signal
// handler may. `flags` in addition, as CLONE_PARENT; its lowest byte is the signal that the child's
// end sends. Returns twice, in the child 0.
long ForkWithoutLibc(unsigned long flags);

}  // namespace heapflare::base
