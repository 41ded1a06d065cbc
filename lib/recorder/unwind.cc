#include "lib/recorder/unwind.h"

#define UNW_LOCAL_ONLY
#include <libunwind.h>

#include <algorithm>
#include <cstring>

#include "lib/box/format.h"
#include "lib/recorder/modules.h"
#include "lib/recorder/stack_bounds.h"
#include "lib/recorder/thread_state.h"
#include "lib/recorder/unwind_port.h"

namespace heapflare::recorder {

Walk WalkStack(const void* caller, uint64_t* frames, uint32_t capacity) {
  frames[0] = reinterpret_cast<uint64_t>(caller);
  const Walk only_caller = {.depth = 1, .flags = box::kStackIncomplete};
  ThreadState& state = thread_state;
  if (!FindStackBounds(reinterpret_cast<uint64_t>(__builtin_frame_address(0)))) return only_caller;

  state.walk_failed = 0;
  const auto room = static_cast<int>(capacity + kOwnFrames);
  const int walked = unw_backtrace(reinterpret_cast<void**>(frames), room);
  const auto end = frames + std::max(walked, 0);
  // Our own frames end where the hook was called.
  const auto first =
      std::find(frames, std::min(frames + kOwnFrames, end), reinterpret_cast<uint64_t>(caller));
  if (first == end || first == frames + kOwnFrames) {
    frames[0] = reinterpret_cast<uint64_t>(caller);
    return only_caller;
  }
  const auto depth = static_cast<uint32_t>(end - first);
  memmove(frames, first, depth * sizeof(*frames));
  if (depth > capacity) return {.depth = capacity, .flags = box::kStackTruncated};
  return {.depth = depth, .flags = state.walk_failed != 0 ? uint32_t{box::kStackIncomplete} : 0};
}

}  // namespace heapflare::recorder

// --- What the unwinder asks us, see unwind_port.h ---

int heapflare_unwind_readable(unsigned long address) {
  using heapflare::recorder::thread_state;
  if (address >= thread_state.stack_low &&
      address <= thread_state.stack_high - sizeof(unsigned long)) {
    return 1;
  }
  thread_state.walk_failed = 1;
  return 0;
}

int heapflare_unwind_iterate(unsigned long ip, int (*callback)(struct dl_phdr_info*, size_t, void*),
                             void* data) {
  return heapflare::recorder::VisitObject(ip, callback, data);
}

unsigned heapflare_unwind_generation = 0;
