#include "lib/recorder/stack_bounds.h"

#include <signal.h>

#include <algorithm>

#include "lib/base/syscall.h"
#include "lib/recorder/own_memory.h"
#include "lib/recorder/thread_state.h"

// ld.so's (in static programs libc's): the first thread's stack at the program's start.
extern "C" void* __libc_stack_end;

namespace heapflare::recorder {
namespace {

constexpr uint64_t kPage = 4096;
// A stack of which no end is known is believed to be this large at most, and is looked at so many
// pages at a time.
constexpr uint64_t kForeignPages = 64;
constexpr uint64_t kForeignStep = 8;
// Above this the distance to the end is that to some other mapping. (A thread that is deeper than
// that at its first sample has an incomplete stack.)
constexpr uint64_t kLargestStack = uint64_t{64} << 20;

constinit uint64_t first_control_block = 0;

uint64_t PageOf(uint64_t address) { return address / kPage * kPage; }

uint64_t ControlBlock() { return reinterpret_cast<uint64_t>(__builtin_thread_pointer()); }

// The first thread's control block is not on its stack, but somewhere among the mappings.
bool OnFirstThread() { return ControlBlock() == first_control_block; }

// True if everything from `low` (rounded down) to `high` can be read.
bool Contiguous(uint64_t low, uint64_t high) {
  if (high <= low || high - low > kLargestStack) return false;
  const uint64_t first = PageOf(low);
  const size_t pages = (PageOf(high - 1) - first) / kPage + 1;
  return ReadablePages(first, pages) == pages;
}

// Whether `stack_pointer` is on the thread's own stack, as far down as that is known by now.
bool OnOwnStack(uint64_t stack_pointer) {
  ThreadState& state = thread_state;
  if (stack_pointer >= state.own_low && stack_pointer < state.own_high) return true;
  const uint64_t end =
      OnFirstThread() ? reinterpret_cast<uint64_t>(__libc_stack_end) : ControlBlock();
  // Deeper than ever: only the new part is looked at.
  if (!Contiguous(stack_pointer, state.own_high == end ? state.own_low : end)) return false;
  state.own_low = PageOf(stack_pointer);
  state.own_high = end;
  return true;
}

// The kernel's struct sigaltstack.
struct HandlerStack {
  uint64_t low;
  int flags;
  uint64_t bytes;
};

bool FindForeignBounds(uint64_t stack_pointer) {
  ThreadState& state = thread_state;
  HandlerStack handler = {};
  if (base::Syscall(SYS_sigaltstack, 0, base::Arg(&handler)) == 0 &&
      stack_pointer - handler.low < handler.bytes) {
    state.bounds.low = handler.low;
    state.bounds.high = handler.low + handler.bytes;
    state.bounds.limit = state.bounds.high;
    return stack_pointer - handler.low >= kStackNeed;
  }
  const uint64_t page = PageOf(stack_pointer);
  const uint64_t below = (page - PageOf(stack_pointer - kStackNeed)) / kPage;
  const uint64_t readable = ReadablePages(page - below * kPage, below + kForeignStep);
  if (readable <= below) {
    // Where asking is forbidden, the page that we stand on is all we know.
    state.bounds.low = page;
    state.bounds.high = state.bounds.limit = page + kPage;
    return false;
  }
  state.bounds.low = page - below * kPage;
  state.bounds.high = state.bounds.low + readable * kPage;
  state.bounds.limit = page + kForeignPages * kPage;
  return true;
}

// Whether the 8 bytes at `address` lie between the bounds; false if there are none.
bool Holds(uint64_t low, uint64_t high, uint64_t address) {
  return address >= low && high >= sizeof(uint64_t) && address <= high - sizeof(uint64_t);
}

// Looks at more pages of a foreign stack.
bool Extend(uint64_t address) {
  ThreadState& state = thread_state;
  if (!Holds(state.bounds.low, state.bounds.limit, address)) return false;
  const uint64_t wanted = (address + sizeof(uint64_t) - state.bounds.high + kPage - 1) / kPage;
  const uint64_t most = (state.bounds.limit - state.bounds.high) / kPage;
  const uint64_t pages = std::min(std::max(wanted, kForeignStep), most);
  state.bounds.high += ReadablePages(state.bounds.high, pages) * kPage;
  if (Holds(state.bounds.low, state.bounds.high, address)) return true;
  state.bounds.limit = state.bounds.high;  // there is an end
  return false;
}

}  // namespace

void RememberFirstThread() { first_control_block = ControlBlock(); }

bool FindStackBounds(uint64_t stack_pointer) {
  ThreadState& state = thread_state;
  if (!OnOwnStack(stack_pointer)) return FindForeignBounds(stack_pointer);
  const uint64_t lowest = PageOf(stack_pointer - kStackNeed);
  bool room = lowest >= state.own_low;
  if (!room) {
    // The first stack grows when it is touched: what is not there yet is no less usable.
    room = OnFirstThread() || Contiguous(lowest, state.own_low);
    if (room) state.own_low = lowest;
  }
  state.bounds.low = state.own_low;
  state.bounds.high = state.bounds.limit = state.own_high;
  return room;
}

bool MayRead(uint64_t address) {
  const ThreadState& state = thread_state;
  return Holds(state.bounds.low, state.bounds.high, address) ||
         // Below a signal handler on a stack of its own.
         Holds(state.own_low, state.own_high, address) || Extend(address);
}

}  // namespace heapflare::recorder
