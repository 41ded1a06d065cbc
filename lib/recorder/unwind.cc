#include "lib/recorder/unwind.h"

#define UNW_LOCAL_ONLY
#include <libunwind.h>

#include <algorithm>
#include <cstring>

#include "lib/box/format.h"
#include "lib/recorder/modules.h"
#include "lib/recorder/own_frames.h"
#include "lib/recorder/stack_bounds.h"
#include "lib/recorder/thread_state.h"
#include "lib/recorder/unwind_port.h"

namespace heapflare::recorder {
namespace {

// Starts in our own frames, which end where the hook was called, and leaves them out.
Walk WalkWithLibunwind(const void* caller, uint64_t* frames, uint32_t capacity) {
  const Walk only_caller = {.depth = 1, .flags = box::kStackIncomplete, .hash = 0};
  ThreadState& state = thread_state;
  state.walk_failed = 0;
  const auto room = static_cast<int>(capacity + kOwnFrames);
  const int walked = unw_backtrace(reinterpret_cast<void**>(frames), room);
  const auto end = frames + std::max(walked, 0);
  const auto first =
      std::find(frames, std::min(frames + kOwnFrames, end), reinterpret_cast<uint64_t>(caller));
  if (first == end || first == frames + kOwnFrames) {
    frames[0] = reinterpret_cast<uint64_t>(caller);
    return only_caller;
  }
  const auto outermost = std::remove_if(first, end, IsOwnFrame);
  const auto depth = static_cast<uint32_t>(outermost - first);
  memmove(frames, first, depth * sizeof(*frames));
  if (depth > capacity) return {.depth = capacity, .flags = box::kStackTruncated, .hash = 0};
  return {.depth = depth,
          .flags = state.walk_failed != 0 ? uint32_t{box::kStackIncomplete} : 0,
          .hash = 0};
}

// By the table of rows, from the hook's caller on. False: see WalkRows, or the hook's frame is not as
// expected.
bool WalkFromCaller(const CallSite& site, uint64_t* frames, uint32_t capacity, WalkMemo* memo,
                    Walk* walk) {
  const auto* const frame = static_cast<const uint64_t*>(site.frame);
  const auto caller = reinterpret_cast<uint64_t>(site.caller);
  // A hook that does not jump but calls has a frame of its own in between.
  if (frame[1] != caller) return false;
  const FrameRegisters from = {.pc = caller,
                               .sp = reinterpret_cast<uint64_t>(frame + 2),
                               .fp = frame[0],
                               .interrupted = false};
  return WalkRows(from, thread_state.bounds.low, thread_state.bounds.high, frames, capacity, walk,
                  memo);
}

}  // namespace

Walk WalkStack(const CallSite& site, uint64_t* frames, uint32_t capacity, WalkMemo* memo) {
  frames[0] = reinterpret_cast<uint64_t>(site.caller);
  Walk walk = {};
  if (WalkFromCaller(site, frames, capacity, memo, &walk)) return walk;
  return WalkWithLibunwind(site.caller, frames, capacity);
}

}  // namespace heapflare::recorder

// --- What libunwind asks us, see unwind_port.h ---

int heapflare_unwind_readable(unsigned long address) {
  if (heapflare::recorder::MayRead(address)) return 1;
  heapflare::recorder::thread_state.walk_failed = 1;
  return 0;
}

int heapflare_unwind_iterate(unsigned long ip, int (*callback)(struct dl_phdr_info*, size_t, void*),
                             void* data) {
  return heapflare::recorder::VisitObject(ip, callback, data);
}

unsigned heapflare_unwind_generation = 0;
