#include "lib/recorder/row_walk.h"

#include <ucontext.h>

#include <bit>
#include <cstddef>

#include "lib/box/format.h"
#include "lib/recorder/own_frames.h"
#include "lib/recorder/unwind_port.h"
#include "lib/recorder/unwind_rows.h"
#include "lib/recorder/walk_memo.h"

namespace heapflare::recorder {

#if defined(__x86_64__)

namespace {

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

class StackReader {
 public:
  StackReader(uint64_t low, uint64_t high)
      : low_(high - low >= sizeof(uint64_t) ? low : ~uint64_t{0}),
        most_(high - low >= sizeof(uint64_t) ? high - low - sizeof(uint64_t) : 0) {}
  bool Read(uint64_t address, uint64_t* value) const {
    if (__builtin_expect(address - low_ > most_, 0) && heapflare_unwind_readable(address) == 0) {
      return false;
    }
    *value = *reinterpret_cast<const uint64_t*>(address);
    return true;
  }

 private:
  uint64_t low_;
  uint64_t most_;
};

enum class Outcome { kStepped, kEnd, kUnreadable, kStrange };

// True for nearly all frames: kStandard, and not the last.
bool IsPlain(uint64_t packed) { return (packed & 15) == (static_cast<uint64_t>(kStandard) & 7); }

// Every other shape.
[[gnu::noinline]] Outcome Advance(const StackReader& stack, const Step& step, FrameRegisters* at) {
  if (step.is_last != 0) return Outcome::kEnd;
  const uint64_t base = step.from_sp != 0 ? at->sp : at->fp;
  switch (step.type) {
    case kGuessed: {
      // The limits within which the guess was made.
      if (at->fp < at->sp || at->fp - at->sp > 0x4000) return Outcome::kUnreadable;
      const uint64_t cfa = base + static_cast<uint64_t>(step.cfa_offset);
      if (!stack.Read(cfa - 8, &at->pc) ||
          (step.fp_offset != -1 &&
           !stack.Read(cfa + static_cast<uint64_t>(step.fp_offset), &at->fp))) {
        return Outcome::kUnreadable;
      }
      at->sp = cfa;
      return Outcome::kStepped;
    }
    case kSignal: {
      constexpr uint64_t kRegisters = offsetof(ucontext_t, uc_mcontext.gregs);
      const uint64_t saved = at->sp + static_cast<uint64_t>(step.cfa_offset) + kRegisters;
      if (!stack.Read(saved + REG_RIP * 8, &at->pc) || !stack.Read(saved + REG_RBP * 8, &at->fp) ||
          !stack.Read(saved + REG_RSP * 8, &at->sp)) {
        return Outcome::kUnreadable;
      }
      at->interrupted = true;
      return Outcome::kStepped;
    }
    case kAligned: {
      uint64_t cfa = base + static_cast<uint64_t>(step.cfa_offset);
      if (!stack.Read(cfa, &cfa) || !stack.Read(cfa - 8, &at->pc) || !stack.Read(at->fp, &at->fp)) {
        return Outcome::kUnreadable;
      }
      at->sp = cfa;
      return Outcome::kStepped;
    }
    default:
      return Outcome::kStrange;
  }
}

// The words above one frame that its caller's frame follows from: whether they lie where the memo
// needs them.
bool InFrame(uint64_t word, uint64_t sp, uint64_t caller_sp) { return word - sp < caller_sp - sp; }

// `Memory`: a Recollection, or what stands in for one.
template <typename Memory>
bool WalkFrames(FrameRegisters from, const StackReader& stack, unsigned generation,
                uint64_t* frames, uint32_t capacity, Walk* walk, Memory memory) {
  // In registers, unlike a struct whose address is passed on.
  uint64_t pc = from.pc;
  uint64_t sp = from.sp;
  uint64_t fp = from.fp;
  uint64_t back = from.interrupted ? 0 : 1;
  const uint64_t* fp_word = nullptr;  // where fp was loaded from
  const OwnCode own = own_code;
  FrameHash hash;
  uint32_t depth = 0;
  uint32_t flags = 0;
  bool at_end = false;
  for (;;) {
    if (back != 0 && memory.Meets(pc, sp, fp, fp_word)) {
      const uint32_t taken = memory.Take(frames + depth, capacity - depth, &hash);
      depth += taken;
      if (memory.EndsAfter(taken)) break;
      if (!memory.GoesOnAfter(taken)) {
        flags = box::kStackTruncated;
        break;
      }
      memory.Outermost(&pc, &sp, &fp);
    } else {
      hash.Add(FrameHash::Mix(pc));
      if (__builtin_expect(pc - own.start < own.bytes, 0)) {
        memory.Break();
      } else {
        frames[depth++] = pc;
        if (back != 0) memory.Add(pc, sp, fp, fp_word);
      }
    }
    uint64_t packed = 0;
    if (__builtin_expect(heapflare_row_find(pc - back, generation, &packed) == 0, 0) &&
        heapflare_unwind_row(pc - back, sp, fp, sp, static_cast<int>(back), generation, &packed) ==
            0) {
      flags = box::kStackIncomplete;
      break;
    }
    if (__builtin_expect(IsPlain(packed), 1)) {
      const Step step = std::bit_cast<Step>(packed);
      const uint64_t inner_sp = sp;
      sp = (step.from_sp != 0 ? sp : fp) + static_cast<uint64_t>(step.cfa_offset);
      const uint64_t fp_at = sp + static_cast<uint64_t>(step.fp_offset);
      fp_word = nullptr;
      if (!stack.Read(sp - 8, &pc)) {
        flags = box::kStackIncomplete;
        break;
      }
      if (step.fp_offset != -1) {
        if (!stack.Read(fp_at, &fp)) {
          flags = box::kStackIncomplete;
          break;
        }
        fp_word = reinterpret_cast<const uint64_t*>(fp_at);
      }
      if (Memory::kRemembers && (!InFrame(sp - 8, inner_sp, sp) ||
                                 (step.fp_offset != -1 && !InFrame(fp_at, inner_sp, sp)))) {
        memory.Break();
      }
      back = 1;
    } else {
      FrameRegisters at = {.pc = pc, .sp = sp, .fp = fp, .interrupted = false};
      const Outcome outcome = Advance(stack, std::bit_cast<Step>(packed), &at);
      if (outcome == Outcome::kStrange) return false;
      if (outcome == Outcome::kUnreadable) flags = box::kStackIncomplete;
      at_end = outcome == Outcome::kEnd;
      if (outcome != Outcome::kStepped) break;
      memory.Break();
      pc = at.pc;
      sp = at.sp;
      fp = at.fp;
      back = at.interrupted ? 0 : 1;
      fp_word = nullptr;
      // Its program counter means something else than the same return address.
      if (at.interrupted) hash.Add(1);
    }
    // The first pages are never mapped: a return address there ends the stack.
    if (pc < 0x4000) break;
    if (depth == capacity) {
      flags = box::kStackTruncated;
      break;
    }
  }
  memory.Keep(at_end);
  uint64_t key = hash.sum() ^ generation ^ flags ^ static_cast<uint64_t>(depth) << 32;
  key = (key ^ key >> 32) * 0xd6e8feb86659fd93;
  *walk = {.depth = depth, .flags = flags, .hash = key ^ key >> 32};
  return true;
}

// No memo.
struct NoRecollection {
  static constexpr bool kRemembers = false;
  bool Meets(uint64_t, uint64_t, uint64_t, const uint64_t*) { return false; }
  uint32_t Take(uint64_t*, uint32_t, FrameHash*) { return 0; }
  bool EndsAfter(uint32_t) const { return true; }
  bool GoesOnAfter(uint32_t) const { return false; }
  void Outermost(uint64_t*, uint64_t*, uint64_t*) const {}
  void Add(uint64_t, uint64_t, uint64_t, const uint64_t*) {}
  void Break() {}
  void Keep(bool) {}
};

}  // namespace

bool WalkRows(FrameRegisters from, uint64_t stack_low, uint64_t stack_high, uint64_t* frames,
              uint32_t capacity, Walk* walk, WalkMemo* memo) {
  const StackReader stack(stack_low, stack_high);
  const unsigned generation = __atomic_load_n(&heapflare_unwind_generation, __ATOMIC_ACQUIRE);
  if (memo == nullptr) {
    return WalkFrames<NoRecollection>(from, stack, generation, frames, capacity, walk, {});
  }
  return WalkFrames<Recollection>(from, stack, generation, frames, capacity, walk,
                                  {memo, generation, from.sp, stack_high});
}

#else

bool WalkRows(FrameRegisters /*from*/, uint64_t /*stack_low*/, uint64_t /*stack_high*/,
              uint64_t* /*frames*/, uint32_t /*capacity*/, Walk* /*walk*/, WalkMemo* /*memo*/) {
  return false;
}

#endif

}  // namespace heapflare::recorder
