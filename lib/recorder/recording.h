// The slow paths of the hooks: what happens when an allocation is sampled and when a sampled block
// is freed.
//
// A hook calls Begin, then the real allocator, then Commit (Recorded, below); or BeginFree, then
// the real free. So an allocation is booked after it was made, and a free before it is: afterwards
// another thread may own the address. Nothing here allocates, takes the loader lock, or touches
// errno. Signal handlers may interrupt and re-enter every function.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lib/box/format.h"
#include "lib/recorder/bootstrap_arena.h"
#include "lib/recorder/free_filter.h"
#include "lib/recorder/next_allocator.h"
#include "lib/recorder/own_frames.h"
#include "lib/recorder/stale_contents.h"
#include "lib/recorder/thread_state.h"
#include "lib/recorder/unwind.h"

namespace heapflare::recorder {

// An allocation on its way through a hook.
struct Ticket {
  uint64_t weight;  // 0: it is not recorded
  uint32_t stack;
  uint32_t box;   // Recorder.box_number
  bool may_look;  // enough stack is left to look at files, and nobody was interrupted at it
};

// Of a block that was just handed out: nobody's, zeroes, or what the caller had in it before.
enum class Contents { kUndefined, kDefined };

// After Sampler::Take said true.
Ticket BeginAllocation(size_t bytes, const CallSite& site);
void CommitAllocation(void* block, size_t bytes, const Ticket& ticket,
                      Contents contents = Contents::kUndefined);

// After the filter said that `block` may hold a sample. False: the block is not the next
// allocator's, do not pass it on.
bool BeginFree(const void* block);

// Instead of BeginAllocation, if another hook will record the allocation. The sample point that was
// met here must not count there, or one allocation could meet two: the countdown starts anew.
void PassAllocation(size_t bytes);

// Marks the block, by its start, as no leak. False: it is not known.
bool MarkIgnored(const void* block);

// The two halves of a free, for realloc, which may fail and leave the block as it was.
struct TakenSample {
  box::Sample sample;
  uint32_t box;  // Recorder.box_number
};
bool TakeSample(const void* block, TakenSample* taken);
void PutSampleBack(const TakenSample& taken);
void BookFree(const TakenSample& taken);

// realloc of a block of the bootstrap arena: moves it to the next allocator.
void* MoveOutOfArena(void* old, size_t bytes);

// The cold part of a hook: books what `function(arguments...)` of the next allocator returns.
// Arguments go by value, so that the hook itself needs no stack frame and its usual path is a jump.
template <typename... Arguments>
[[HEAPFLARE_CALLS_ALLOCATOR]] void* Recorded(size_t bytes, const void* caller,
                                             void* (*const* function)(Arguments...),
                                             Arguments... arguments) {
  const Ticket ticket = BeginAllocation(bytes, HEAPFLARE_CALL_SITE(caller));
  void* const block = (*function)(arguments...);
  if (ticket.weight != 0 && block != nullptr) {
    const bool zeroed =
        static_cast<const void*>(function) == static_cast<const void*>(&next.calloc);
    CommitAllocation(block, bytes, ticket, zeroed ? Contents::kDefined : Contents::kUndefined);
  }
  return block;
}

// The same for operator new, which may come back to another hook.
template <typename... Arguments>
[[HEAPFLARE_CALLS_ALLOCATOR]] void* RecordedNew(size_t bytes, const void* caller,
                                                void* (*const* function)(Arguments...),
                                                const bool* comes_back, Arguments... arguments) {
  // Only now it is known.
  FindNextAllocator();
  if (!*comes_back) return Recorded(bytes, caller, function, arguments...);
  PassAllocation(bytes);
  return (*function)(arguments...);
}

// The same for realloc to `bytes`; `due`: what Sampler::Take said of it.
[[HEAPFLARE_CALLS_ALLOCATOR]] inline void* Reallocated(void* old, size_t bytes, bool due,
                                                       const void* caller) {
  if (InArena(old)) return MoveOutOfArena(old, bytes);
  TakenSample taken = {};
  const bool sampled = free_filter.MayHold(old) && TakeSample(old, &taken);
  const Ticket ticket = due ? BeginAllocation(bytes, HEAPFLARE_CALL_SITE(caller)) : Ticket{};
  void* const block = sampled && KeepsStaleContentsAway()
                          ? ReallocateCleanly(old, box::SizeOf(taken.sample), bytes)
                          : next.realloc(old, bytes);
  // With a size of zero the old block is gone either way.
  if (sampled && block == nullptr && bytes != 0) {
    PutSampleBack(taken);
  } else if (sampled) {
    BookFree(taken);
  }
  if (ticket.weight != 0 && block != nullptr) {
    CommitAllocation(block, bytes, ticket,
                     old != nullptr ? Contents::kDefined : Contents::kUndefined);
    if (sampled && box::IsIgnored(taken.sample)) MarkIgnored(block);
  }
  return block;
}

// The same for posix_memalign, which returns its block by another way.
[[HEAPFLARE_CALLS_ALLOCATOR]] inline int RecordedPosixMemalign(void** block, size_t alignment,
                                                               size_t bytes, const void* caller) {
  const Ticket ticket = BeginAllocation(bytes, HEAPFLARE_CALL_SITE(caller));
  const int error = next.posix_memalign(block, alignment, bytes);
  if (ticket.weight != 0 && error == 0) CommitAllocation(*block, bytes, ticket);
  return error;
}

}  // namespace heapflare::recorder
