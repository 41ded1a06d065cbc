// The walk: a loop over the rows of unwind_rows.h where it can, libunwind's where it cannot.
#include "lib/recorder/unwind.h"

#define UNW_LOCAL_ONLY
#include <libunwind.h>
#include <ucontext.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>

#include "lib/box/format.h"
#include "lib/recorder/modules.h"
#include "lib/recorder/stack_bounds.h"
#include "lib/recorder/thread_state.h"
#include "lib/recorder/unwind_port.h"
#include "lib/recorder/unwind_rows.h"

namespace heapflare::recorder {
namespace {

bool MayRead(const ThreadState& state, uint64_t address) {
  return address >= state.stack_low && address <= state.stack_high - sizeof(uint64_t);
}

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
  const auto depth = static_cast<uint32_t>(end - first);
  memmove(frames, first, depth * sizeof(*frames));
  if (depth > capacity) return {.depth = capacity, .flags = box::kStackTruncated, .hash = 0};
  return {.depth = depth,
          .flags = state.walk_failed != 0 ? uint32_t{box::kStackIncomplete} : 0,
          .hash = 0};
}

#if defined(__x86_64__)

// A step of the table: the second word of libunwind's unw_tdep_frame_t.
struct Step {
  int64_t type : 3;
  int64_t is_last : 1;
  int64_t from_sp : 1;  // the CFA is relative to sp, else to fp
  int64_t cfa_offset : 29;
  int64_t fp_offset : 15;  // where fp is saved, relative to the new CFA; -1: it is not
  int64_t sp_offset : 15;
};
enum StepType : int64_t { kAligned = -3, kStandard = -2, kSignal = -1, kGuessed = 1 };

struct Registers {
  uint64_t pc;
  uint64_t sp;
  uint64_t fp;
};

class StackReader {
 public:
  explicit StackReader(const ThreadState& state)
      : low_(state.stack_low), most_(state.stack_high - sizeof(uint64_t) - state.stack_low) {}
  bool Read(uint64_t address, uint64_t* value) const {
    if (address - low_ > most_) return false;
    *value = *reinterpret_cast<const uint64_t*>(address);
    return true;
  }

 private:
  uint64_t low_;
  uint64_t most_;
};

enum class Outcome { kStepped, kEnd, kUnreadable, kStrange };

Outcome Advance(const StackReader& stack, const Step& step, Registers* at, int* below_signal) {
  if (step.is_last != 0) return Outcome::kEnd;
  uint64_t cfa = 0;
  switch (step.type) {
    case kGuessed:
      // The limits within which the guess was made.
      if (at->fp < at->sp || at->fp - at->sp > 0x4000) return Outcome::kUnreadable;
      [[fallthrough]];
    case kStandard:
      cfa = static_cast<uint64_t>(step.cfa_offset) + (step.from_sp != 0 ? at->sp : at->fp);
      if (!stack.Read(cfa - 8, &at->pc)) return Outcome::kUnreadable;
      if (step.fp_offset != -1 &&
          !stack.Read(cfa + static_cast<uint64_t>(step.fp_offset), &at->fp)) {
        return Outcome::kUnreadable;
      }
      at->sp = cfa;
      break;
    case kSignal: {
      constexpr uint64_t kRegisters = offsetof(ucontext_t, uc_mcontext.gregs);
      const uint64_t saved = at->sp + static_cast<uint64_t>(step.cfa_offset) + kRegisters;
      if (!stack.Read(saved + REG_RIP * 8, &at->pc) || !stack.Read(saved + REG_RBP * 8, &at->fp) ||
          !stack.Read(saved + REG_RSP * 8, &at->sp)) {
        return Outcome::kUnreadable;
      }
      *below_signal = 1;
      return at->pc < 0x4000 ? Outcome::kEnd : Outcome::kStepped;
    }
    case kAligned:
      cfa = static_cast<uint64_t>(step.cfa_offset) + (step.from_sp != 0 ? at->sp : at->fp);
      if (!stack.Read(cfa, &cfa) || !stack.Read(cfa - 8, &at->pc) || !stack.Read(at->fp, &at->fp)) {
        return Outcome::kUnreadable;
      }
      at->sp = cfa;
      break;
    default:
      return Outcome::kStrange;
  }
  *below_signal = 0;
  // The first pages are never mapped: a return address there ends the stack.
  return at->pc < 0x4000 ? Outcome::kEnd : Outcome::kStepped;
}

// False: a frame is too strange for a row, or the hook's own frame is not as expected.
bool WalkRows(const CallSite& site, uint64_t* frames, uint32_t capacity, Walk* walk) {
  const auto* const frame = static_cast<const uint64_t*>(site.frame);
  const auto caller = reinterpret_cast<uint64_t>(site.caller);
  // A hook that does not jump but calls has a frame of its own in between.
  if (frame[1] != caller) return false;
  Registers at = {.pc = caller, .sp = reinterpret_cast<uint64_t>(frame + 2), .fp = frame[0]};
  const StackReader stack(thread_state);
  const unsigned generation = __atomic_load_n(&heapflare_unwind_generation, __ATOMIC_ACQUIRE);
  uint64_t hash = generation;
  uint32_t depth = 0;
  uint32_t flags = 0;
  // A return address is looked up by the byte before it, which belongs to the call.
  int below_signal = 0;
  for (;;) {
    frames[depth++] = at.pc;
    hash = std::rotl(hash ^ at.pc, 29) * 0x9e3779b97f4a7c15;
    const uint64_t pc = at.pc - (below_signal != 0 ? 0 : 1);
    uint64_t packed = 0;
    if (__builtin_expect(heapflare_row_find(pc, generation, &packed) == 0, 0) &&
        heapflare_unwind_row(pc, at.sp, at.fp, at.sp, below_signal != 0 ? 0 : 1, generation,
                             &packed) == 0) {
      flags = box::kStackIncomplete;
      break;
    }
    const Outcome outcome = Advance(stack, std::bit_cast<Step>(packed), &at, &below_signal);
    if (outcome == Outcome::kStrange) return false;
    if (outcome == Outcome::kUnreadable) flags = box::kStackIncomplete;
    if (outcome != Outcome::kStepped) break;
    if (depth == capacity) {
      flags = box::kStackTruncated;
      break;
    }
  }
  hash ^= flags | static_cast<uint64_t>(depth) << 32;
  hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93;
  *walk = {.depth = depth, .flags = flags, .hash = hash ^ hash >> 32};
  return true;
}

#else

bool WalkRows(const CallSite& /*site*/, uint64_t* /*frames*/, uint32_t /*capacity*/,
              Walk* /*walk*/) {
  return false;
}

#endif

}  // namespace

Walk WalkStack(const CallSite& site, uint64_t* frames, uint32_t capacity) {
  frames[0] = reinterpret_cast<uint64_t>(site.caller);
  Walk walk = {.depth = 1, .flags = box::kStackIncomplete, .hash = 0};
  if (!FindStackBounds(reinterpret_cast<uint64_t>(__builtin_frame_address(0)))) return walk;
  if (WalkRows(site, frames, capacity, &walk)) return walk;
  return WalkWithLibunwind(site.caller, frames, capacity);
}

}  // namespace heapflare::recorder

// --- What libunwind asks us, see unwind_port.h ---

int heapflare_unwind_readable(unsigned long address) {
  using namespace heapflare::recorder;
  if (MayRead(thread_state, address)) return 1;
  thread_state.walk_failed = 1;
  return 0;
}

int heapflare_unwind_iterate(unsigned long ip, int (*callback)(struct dl_phdr_info*, size_t, void*),
                             void* data) {
  return heapflare::recorder::VisitObject(ip, callback, data);
}

unsigned heapflare_unwind_generation = 0;
