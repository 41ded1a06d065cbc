#include "lib/recorder/stack_bounds.h"

#include <algorithm>

#include "lib/recorder/own_memory.h"
#include "lib/recorder/thread_state.h"

// ld.so's (in static programs libc's): the first thread's stack at the program's start.
extern "C" void* __libc_stack_end;

namespace heapflare::recorder {
namespace {

constexpr uint64_t kPage = 4096;
// What unwinding and booking a sample need below the hook, measured with the deepest path: 6 KiB.
constexpr uint64_t kNeed = 8 << 10;
// A stack of which no end is known is believed to be this large at most.
constexpr size_t kForeignPages = 64;
// Above this the distance to the control block is that to some other mapping.
constexpr uint64_t kLargestStack = uint64_t{1} << 30;

uint64_t PageOf(uint64_t address) { return address / kPage * kPage; }

// True if everything from `low` (rounded down) to `high` can be read.
bool Contiguous(uint64_t low, uint64_t high) {
  if (high <= low || high - low > kLargestStack) return false;
  const uint64_t first = PageOf(low);
  const size_t pages = (PageOf(high - 1) - first) / kPage + 1;
  return ReadablePages(first, pages) == pages;
}

}  // namespace

bool FindStackBounds(uint64_t stack_pointer) {
  ThreadState& state = thread_state;
  const uint64_t lowest = stack_pointer - kNeed;
  if (lowest >= state.stack_low && stack_pointer < state.stack_high) return true;

  const auto first_stack = reinterpret_cast<uint64_t>(__libc_stack_end);
  const auto control_block = reinterpret_cast<uint64_t>(__builtin_thread_pointer());
  // Deeper on the stack that is known: only the new part is looked at.
  if (stack_pointer < state.stack_low && state.stack_low - stack_pointer < kLargestStack &&
      Contiguous(stack_pointer, state.stack_low)) {
    state.stack_low = PageOf(stack_pointer);
  } else if (!(stack_pointer >= state.stack_low && stack_pointer < state.stack_high)) {
    state.stack_low = PageOf(stack_pointer);
    if (Contiguous(stack_pointer, control_block)) {
      state.stack_high = control_block;
    } else if (Contiguous(stack_pointer, first_stack)) {
      state.stack_high = first_stack;
    } else {
      // Where asking is forbidden, the page that we stand on is all we know.
      const size_t pages = std::max<size_t>(ReadablePages(state.stack_low, kForeignPages), 1);
      state.stack_high = state.stack_low + pages * kPage;
    }
  }
  // The first stack grows when it is touched: what is not there yet is no less usable.
  if (state.stack_high == first_stack) {
    state.stack_low = std::min(state.stack_low, PageOf(lowest));
    return true;
  }
  const uint64_t below = PageOf(lowest);
  if (below >= state.stack_low) return true;
  if (!Contiguous(below, state.stack_low)) return false;
  state.stack_low = below;
  return true;
}

}  // namespace heapflare::recorder
