#include "lib/recorder/recording.h"

#include <algorithm>
#include <cstring>

#include "lib/recorder/bootstrap_arena.h"
#include "lib/recorder/memory_clock.h"
#include "lib/recorder/recorder.h"
#include "lib/recorder/unwind.h"

namespace heapflare::recorder {
namespace {

using box::Atomic;

// Marks this thread as inside the recorder. `first()` is false below a signal handler that
// interrupted it there.
class Inside {
 public:
  Inside() : first_(thread_state.busy == 0) { ++thread_state.busy; }
  ~Inside() { --thread_state.busy; }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
  bool first() const { return first_; }

 private:
  bool first_;
};

void Count(uint64_t box::Losses::*loss, uint64_t by = 1) {
  Atomic(recorder.mapping.header().losses.*loss).fetch_add(by, std::memory_order_relaxed);
}

uint32_t CaptureStack(const void* caller, bool may_unwind) {
  const uint32_t capacity = recorder.settings.max_stack;
  auto* frames =
      static_cast<uint64_t*>(__builtin_alloca((capacity + kOwnFrames) * sizeof(uint64_t)));
  Walk walk = {.depth = 1, .flags = box::kStackIncomplete};
  if (may_unwind) {
    walk = WalkStack(caller, frames, capacity);
  } else {
    frames[0] = reinterpret_cast<uint64_t>(caller);
  }
  if ((walk.flags & box::kStackTruncated) != 0) Count(&box::Losses::truncated_stacks);
  if ((walk.flags & box::kStackIncomplete) != 0) Count(&box::Losses::unwind_failures);
  const uint32_t stack = recorder.stacks.Intern(frames, walk.depth, walk.flags);
  if (stack == box::kOtherStack) Count(&box::Losses::folded_stacks);
  return stack;
}

void BookAllocation(uint32_t stack, uint64_t weight, uint64_t bytes) {
  box::Header& header = recorder.mapping.header();
  recorder.stacks.AddAllocated(stack, weight, bytes);
  Atomic(header.allocated_bytes).fetch_add(bytes, std::memory_order_relaxed);
  Atomic(header.samples_taken).fetch_add(1, std::memory_order_relaxed);
}

void BookFree(uint32_t stack, uint64_t weight, uint64_t bytes) {
  recorder.stacks.AddFreed(stack, weight, bytes);
  Atomic(recorder.mapping.header().freed_bytes).fetch_add(bytes, std::memory_order_relaxed);
}

uint32_t Age() {
  const uint64_t opened = recorder.mapping.header().opened_mono;
  return static_cast<uint32_t>((CoarseNow() - opened) / 100'000'000);
}

}  // namespace

Ticket BeginAllocation(size_t bytes, const void* caller) {
  // The first of all calls, before any constructor ran.
  Prepare();
  // What preparing itself allocates: the interval is not known yet, so nothing may be drawn with it.
  if (recorder.phase.load(std::memory_order_acquire) == Phase::kNew) {
    thread_state.sampler.Reset();
    return {};
  }
  const Inside inside;
  const uint64_t weight =
      thread_state.sampler.Draw(bytes, recorder.interval.load(std::memory_order_relaxed));
  const bool large = bytes >= kLargeRequest;
  if ((weight == 0 && !large) || !InOwnProcess()) return {};
  // Below a signal handler that interrupted the opening of the box, waiting for it would be waiting
  // for ourselves.
  if (!inside.first() && recorder.phase.load(std::memory_order_acquire) != Phase::kRecording) {
    return {};
  }
  if (!Ready()) return {};
  Ticket ticket = {.weight = weight, .stack = CaptureStack(caller, inside.first())};
  if (large) BeforeLargeRequest(bytes, ticket.stack);
  return ticket;
}

void CommitAllocation(const void* block, size_t bytes, const Ticket& ticket) {
  const Inside inside;
  const uint64_t weighted = box::WeightedBytes(bytes, ticket.weight);
  // An address cannot be given out twice: if it has a sample, its free went past us.
  box::Sample stale = {};
  if (free_filter.MayHold(block) &&
      recorder.samples.Remove(reinterpret_cast<uint64_t>(block), &stale)) {
    free_filter.Drop(block);
    BookFree(stale);
    Count(&box::Losses::missed_frees);
  }
  BookAllocation(ticket.stack, ticket.weight, weighted);
  free_filter.Add(block);
  const bool kept = recorder.samples.Insert({.address = reinterpret_cast<uint64_t>(block),
                                             .size = bytes,
                                             .weight = ticket.weight,
                                             .stack = ticket.stack,
                                             .born_tenths = Age()});
  if (!kept) {
    // It cannot be followed: so it is not counted as live, and the box says so.
    free_filter.Drop(block);
    BookFree(ticket.stack, ticket.weight, weighted);
    Count(&box::Losses::samples);
    Count(&box::Losses::sample_bytes, weighted);
  }
  if (recorder.samples.live() >= recorder.thin_at.load(std::memory_order_relaxed)) Thin();
  AdvanceMemoryClock(box::WholeBytes(weighted), inside.first());
}

bool BeginFree(const void* block) {
  if (InArena(block)) return false;
  box::Sample sample = {};
  if (TakeSample(block, &sample)) BookFree(sample);
  return true;
}

bool TakeSample(const void* block, box::Sample* sample) {
  const auto address = reinterpret_cast<uint64_t>(block);
  // After Close too: what is booked then is not read, but the table stays consistent.
  const Phase phase = recorder.phase.load(std::memory_order_acquire);
  if (phase != Phase::kRecording) return false;
  if (!recorder.samples.Contains(address) || !InOwnProcess()) return false;
  if (!recorder.samples.Remove(address, sample)) return false;
  free_filter.Drop(block);
  return true;
}

void PutSampleBack(const box::Sample& sample) {
  const auto* block = reinterpret_cast<const void*>(sample.address);
  free_filter.Add(block);
  if (recorder.samples.Insert(sample)) return;
  free_filter.Drop(block);
  BookFree(sample);
  Count(&box::Losses::samples);
  Count(&box::Losses::sample_bytes, box::WeightedBytes(sample.size, sample.weight));
}

void BookFree(const box::Sample& sample) {
  BookFree(sample.stack, sample.weight, box::WeightedBytes(sample.size, sample.weight));
}

void* MoveOutOfArena(void* old, size_t bytes) {
  void* const block = next.malloc(bytes);
  if (block != nullptr) memcpy(block, old, std::min(bytes, ArenaBlockSize(old)));
  return block;
}

}  // namespace heapflare::recorder
