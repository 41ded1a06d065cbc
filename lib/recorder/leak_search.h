// Finds the blocks that nothing leads to: a walk from the roots through all live blocks.
//
// Roots are all memory that is mapped but what leak_memory.h passes over, the registers of all
// threads, and what only the kernel holds (epoll data, timers, pipes, sockets). A block is reached if
// a reached place holds the address of one of its bytes or the one past its end, at any offset: packed
// structures have pointers at odd addresses. The upper 16 bits of a word do not count. Blocks that are
// marked as ignored are reached, so what they lead to is as well.
//
// What was not reached is a leak: indirect if another leak leads to it, else direct. Of a cycle one
// block is direct.
//
// Search does its work in a process of its own that shares our memory and stops our threads
// (reach/stopped_threads.h). No recursion, no allocation but its own mappings.
#pragma once

#include <cstdint>

#include "lib/recorder/exit_frame.h"

namespace heapflare::recorder {

struct StackLeaks {
  uint64_t direct_objects;
  uint64_t direct_bytes;
  uint64_t indirect_objects;
  uint64_t indirect_bytes;
};

struct LeakResult {
  // 0 or an errno value: it could not be done.
  int error;
  // 0, or why threads could not be stopped: then what only registers refer to counts as a leak, and
  // what lies on dead stacks does not.
  int stop_error;
  uint32_t threads_unseen;
  uint64_t blocks;  // that are live
  uint64_t reached;
  StackLeaks all;
  // By stack, `stack_count` of them. In a mapping of `stack_bytes`, to be unmapped.
  StackLeaks* stacks;
  uint64_t stack_count;
  uint64_t stack_bytes;
};

// By a thread that is at `frame`. The books are open. Waits until it is done.
void SearchLeaks(const ProgramFrame& frame, LeakResult* result);

}  // namespace heapflare::recorder
