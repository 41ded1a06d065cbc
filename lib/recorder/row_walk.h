// Walks a stack by the table of rows alone: the usual way, and the fast one.
//
// Each row tells how to get from one program counter to its caller; a row that is missing is worked
// out by one step of libunwind (unwind_rows.h). Only memory within the bounds that are given is read,
// and beyond them what heapflare_unwind_readable (unwind_port.h) allows.
// Thread- and async-signal-safe.
#pragma once

#include <cstdint>

namespace heapflare::recorder {

class WalkMemo;

struct Walk {
  uint32_t depth;
  uint32_t flags;  // box::StackFlags
  // Of the frames, the flags and the module generation: equal for equal stacks, 0 if it was not
  // computed.
  uint64_t hash;
};

// Of a frame that is not finished.
struct FrameRegisters {
  uint64_t pc;
  uint64_t sp;
  uint64_t fp;
  // `pc` was interrupted there. Otherwise it is a return address, which belongs to the call before it.
  bool interrupted;
};

// Fills `frames` (room for `capacity`, at least one) with `from.pc` and the return addresses that
// follow. False: there is a frame that no row can express, or the processor is one whose rows are
// not known here; then nothing is to be believed. `memo`: this thread's, if it is to be used.
bool WalkRows(FrameRegisters from, uint64_t stack_low, uint64_t stack_high, uint64_t* frames,
              uint32_t capacity, Walk* walk, WalkMemo* memo = nullptr);

}  // namespace heapflare::recorder
