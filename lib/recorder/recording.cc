#include "lib/recorder/recording.h"

#include <algorithm>
#include <cstring>

#include "lib/recorder/bootstrap_arena.h"
#include "lib/recorder/inside.h"
#include "lib/recorder/memory_clock.h"
#include "lib/recorder/own_process.h"
#include "lib/recorder/recorder.h"
#include "lib/recorder/stack_bounds.h"
#include "lib/recorder/unwind.h"
#include "lib/recorder/unwind_port.h"
#include "lib/recorder/walk_memo_pool.h"

namespace heapflare::recorder {
namespace {

using box::Atomic;
using Room = box::SampleTable::Room;

// The recording of one allocation. Below a signal handler that interrupted the recorder, a walk is
// possible like anywhere (its bounds are the handler's own until it returns), but nothing that the
// interrupted code may be in the middle of: a scan, a look at memory, the opening of the box.
class Recording {
 public:
  Recording() {
    if (!inside_.first()) Interrupt();
    may_walk_ = FindStackBounds(reinterpret_cast<uint64_t>(__builtin_frame_address(0)));
    thread_state.cramped = inside_.first() && may_walk_ ? 0 : 1;
  }
  // Without a walk; whether there is room for looks is known already.
  explicit Recording(bool may_look) {
    if (!inside_.first()) Interrupt();
    thread_state.cramped = inside_.first() && may_look ? 0 : 1;
  }
  ~Recording() {
    if (!inside_.first()) Resume();
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  bool may_walk() const { return may_walk_; }
  bool may_look() const { return thread_state.cramped == 0; }

 private:
  // What the interrupted code goes on with.
  struct Interrupted {
    ThreadState::Bounds bounds;
    uint32_t cramped;
    uint32_t walk_failed;
  };

  void Interrupt() {
    const ThreadState& state = thread_state;
    interrupted_ = {state.bounds, state.cramped, state.walk_failed};
  }
  void Resume() const {
    thread_state.bounds = interrupted_.bounds;
    thread_state.cramped = interrupted_.cramped;
    thread_state.walk_failed = interrupted_.walk_failed;
  }

  const Inside inside_;
  Interrupted interrupted_ = {};  // of use if this is not the first
  bool may_walk_ = false;
};

uint32_t BoxNumber() { return recorder.box_number.load(std::memory_order_relaxed); }

void Count(uint64_t box::Losses::*loss, uint64_t by = 1) {
  Atomic(recorder.mapping.header().losses.*loss).fetch_add(by, std::memory_order_relaxed);
}

// Threads get the shared counters in turn.
uint32_t ThreadNumber() {
  constinit static std::atomic<uint32_t> given = 0;
  uint32_t& number = thread_state.number;
  if (number == 0) number = given.fetch_add(1, std::memory_order_relaxed) % box::kTallies + 1;
  return number;
}

// Below this mean interval most walks begin where the last one did.
constexpr uint64_t kSmallInterval = 4096;

uint32_t CaptureStack(const CallSite& site, bool may_unwind, bool may_remember) {
  may_remember = may_remember && recorder.interval.load(std::memory_order_relaxed) < kSmallInterval;
  WalkMemo* const memo = may_remember ? MemoOfThisThread() : nullptr;
  const uint32_t capacity = recorder.settings.max_stack;
  auto* frames =
      static_cast<uint64_t*>(__builtin_alloca((capacity + kOwnFrames) * sizeof(uint64_t)));
  Walk walk = {.depth = 1, .flags = box::kStackIncomplete, .hash = 0};
  uint32_t stack = box::kOtherStack;
  for (bool again = false;; again = true) {
    const unsigned generation = __atomic_load_n(&heapflare_unwind_generation, __ATOMIC_ACQUIRE);
    if (may_unwind) {
      walk = WalkStack(site, frames, capacity, memo);
    } else {
      frames[0] = reinterpret_cast<uint64_t>(site.caller);
    }
    stack = recorder.stacks.Intern(frames, walk.depth, walk.flags, walk.hash);
    // A library that came in the place of another one was walked by the other one's rows: that is
    // noticed while its frames are looked up, so what was walked is worth nothing.
    if (!may_unwind || again ||
        generation == __atomic_load_n(&heapflare_unwind_generation, __ATOMIC_ACQUIRE)) {
      break;
    }
  }
  if ((walk.flags & box::kStackTruncated) != 0) Count(&box::Losses::truncated_stacks);
  if ((walk.flags & box::kStackIncomplete) != 0) Count(&box::Losses::unwind_failures);
  if (stack == box::kOtherStack) Count(&box::Losses::folded_stacks);
  return stack;
}

void BookSampleAsFreed(const box::Sample& sample) {
  recorder.stacks.AddFreed(sample.stack, sample.weight,
                           box::WeightedBytes(box::SizeOf(sample), sample.weight), ThreadNumber());
}

// Who frees a block has a pointer to it. (Not if the free went past us and the address came back.)
void CountFalseLeak(const box::Sample& sample) {
  if (!box::WasCalledUnreachable(sample)) return;
  Atomic(recorder.mapping.Records<box::Stack>(box::kStacks)[sample.stack].false_leaks)
      .fetch_add(1, std::memory_order_relaxed);
}

// It found no room, so it cannot be followed: it is not counted as live, and the box says so.
void Lose(const box::Sample& sample) {
  free_filter.Drop(reinterpret_cast<const void*>(sample.address));
  BookSampleAsFreed(sample);
  Count(&box::Losses::samples);
  Count(&box::Losses::sample_bytes, box::WeightedBytes(box::SizeOf(sample), sample.weight));
}

bool Take(const void* block, box::Sample* sample) {
  const auto address = reinterpret_cast<uint64_t>(block);
  // After Close too: what is booked then is not read, but the table stays consistent.
  const Phase phase = recorder.phase.load(std::memory_order_acquire);
  if (phase != Phase::kRecording || !free_filter.MayHoldAt(block)) return false;
  recorder.samples.Prefetch(address);
  if (!InOwnProcess() || !recorder.samples.Remove(address, sample, ThreadNumber())) return false;
  free_filter.Drop(block);
  return true;
}

uint32_t Age() {
  const uint64_t opened = recorder.mapping.header().opened_mono;
  return static_cast<uint32_t>((CoarseNow() - opened) / 100'000'000);
}

}  // namespace

Ticket BeginAllocation(size_t bytes, const CallSite& site) {
  // The first of all calls, before any constructor ran.
  Prepare();
  // What preparing itself allocates: the interval is not known yet, so nothing may be drawn with it.
  if (recorder.phase.load(std::memory_order_acquire) == Phase::kNew) {
    thread_state.sampler.Reset();
    return {};
  }
  const uint64_t weight =
      thread_state.sampler.Draw(bytes, recorder.interval.load(std::memory_order_relaxed));
  const bool large = bytes >= kLargeRequest;
  if ((weight == 0 && !large) || !InOwnProcess()) return {};
  const Recording recording;
  // Opening the box takes room. And below a signal handler that interrupted the wait for it, waiting
  // would be waiting for ourselves.
  const bool may_wait =
      recording.may_look() || recorder.phase.load(std::memory_order_acquire) == Phase::kRecording;
  if (!may_wait || !Ready()) {
    NoteUnrecorded(bytes, weight);
    return {};
  }
  const Ticket ticket = {.weight = weight,
                         .stack = CaptureStack(site, recording.may_walk(), recording.may_look()),
                         .box = BoxNumber(),
                         .may_look = recording.may_look()};
  if (large && recording.may_look()) BeforeLargeRequest(bytes, ticket.stack);
  return ticket;
}

void PassAllocation(size_t bytes) {
  Prepare();
  if (recorder.phase.load(std::memory_order_acquire) == Phase::kNew) {
    thread_state.sampler.Reset();
  } else {
    thread_state.sampler.Draw(bytes, recorder.interval.load(std::memory_order_relaxed));
  }
}

void CommitAllocation(void* block, size_t bytes, const Ticket& ticket, Contents contents) {
  if (contents == Contents::kUndefined && KeepsStaleContentsAway()) ClearBlock(block, bytes, 0);
  const Recording recording(ticket.may_look);
  if (ticket.box != BoxNumber()) return;
  recorder.samples.Prefetch(reinterpret_cast<uint64_t>(block));
  const bool leak_check = recorder.settings.leak_check;
  const uint64_t weighted = box::WeightedBytes(bytes, ticket.weight);
  const uint32_t number = ThreadNumber();
  recorder.stacks.AddAllocated(ticket.stack, ticket.weight, weighted, number);
  // An address cannot be given out twice: if it has a sample, its free went past us.
  box::Sample stale = {};
  if (free_filter.MayHoldAt(block) &&
      recorder.samples.Remove(reinterpret_cast<uint64_t>(block), &stale, number)) {
    free_filter.Drop(block);
    BookSampleAsFreed(stale);
    Count(&box::Losses::missed_frees);
  }
  free_filter.Add(block);
  const uint64_t mark = thread_state.leaks_ignored != 0 ? box::kMarkIgnored : 0;
  const box::Sample sample = {.address = reinterpret_cast<uint64_t>(block),
                              .size_and_marks = box::WithoutMarks(bytes) | mark,
                              .weight = ticket.weight,
                              .stack = ticket.stack,
                              .born_tenths = leak_check ? recorder.generation : Age()};
  const Room room = recorder.samples.Insert(sample, number);
  if (room == Room::kNone) Lose(sample);
  if (room != Room::kPlenty) Thin();
  AdvanceMemoryClock(box::WholeBytes(weighted), recording.may_look());
}

bool BeginFree(const void* block) {
  if (InArena(block)) return false;
  // Another block of that page was sampled: so it is with nearly all that come here.
  if (!free_filter.MayHoldAt(block)) return true;
  const Inside inside;
  box::Sample sample = {};
  if (Take(block, &sample)) {
    BookSampleAsFreed(sample);
    CountFalseLeak(sample);
    if (KeepsStaleContentsAway()) MarkFreed(const_cast<void*>(block));
  }
  return true;
}

bool MarkIgnored(const void* block) {
  const Inside inside;
  return recorder.phase.load(std::memory_order_acquire) == Phase::kRecording &&
         recorder.samples.AddMark(reinterpret_cast<uint64_t>(block), box::kMarkIgnored);
}

bool TakeSample(const void* block, TakenSample* taken) {
  const Inside inside;
  taken->box = BoxNumber();
  return Take(block, &taken->sample);
}

void PutSampleBack(const TakenSample& taken) {
  const Inside inside;
  if (taken.box != BoxNumber()) return;
  const auto* block = reinterpret_cast<const void*>(taken.sample.address);
  free_filter.Add(block);
  if (recorder.samples.Insert(taken.sample, ThreadNumber()) == Room::kNone) Lose(taken.sample);
}

void BookFree(const TakenSample& taken) {
  const Inside inside;
  if (taken.box != BoxNumber()) return;
  BookSampleAsFreed(taken.sample);
  CountFalseLeak(taken.sample);
}

void* MoveOutOfArena(void* old, size_t bytes) {
  void* const block = next.malloc(bytes);
  if (block != nullptr) memcpy(block, old, std::min(bytes, ArenaBlockSize(old)));
  return block;
}

}  // namespace heapflare::recorder
