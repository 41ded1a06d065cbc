// Where on its stack a thread left the program for exit(), or for one of our functions.
//
// What lies below was left by calls that have returned. When main returns, libc calls exit from where
// it had called main, and the frames of the exit handlers, ours among them, lie on what main left:
// words in their gaps are main's, and dead. So the live part of the stack begins where the last call
// was made by code that is not libc's.
//
// By libunwind, for the registers that a callee keeps: the program's frame may have its only pointer
// in one of these. Not async-signal-safe, allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>

namespace heapflare::recorder {

struct ProgramFrame {
  static constexpr size_t kMostRegisters = 12;
  // 0: it was not found, and the whole stack counts.
  uint64_t stack_pointer;
  uint64_t registers[kMostRegisters];
  size_t register_count;
};

// Of the caller of exit, from within an exit handler.
ProgramFrame FindCallerOfExit();
// Of the frame that `return_address` leads back to.
ProgramFrame FindFrameAt(uint64_t return_address);

}  // namespace heapflare::recorder
