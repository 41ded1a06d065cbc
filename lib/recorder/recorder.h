// The recorder of this process: its settings, its box, and its life.
//
//   new ──Prepare──► waiting ──OpenBox──► recording ──Close──► closed
//         └─► off (not to be profiled)  └─► off (no box can be made)
//   in a forked child: ─► waiting, or ─► interrupted ─► waiting
//
// Prepare runs in the first hook or in the constructor. The box is opened at the first sample, or
// by the recorder's thread a moment after the start, whichever comes first: so a process that
// starts, does little and ends, or calls exec, leaves no file, and a forked child opens its own box
// only if it lives. A forked child goes back to waiting.
//
// There is one, in static memory, valid when all zero.
#pragma once

#include <atomic>
#include <cstdint>

#include "lib/base/text.h"
#include "lib/box/mapping.h"
#include "lib/box/sample_table.h"
#include "lib/box/stack_table.h"
#include "lib/recorder/identity.h"
#include "lib/recorder/settings.h"

namespace heapflare::recorder {

enum class Phase : uint32_t { kNew, kOff, kWaiting, kOpening, kRecording, kClosed, kInterrupted };

struct Recorder {
  std::atomic<Phase> phase;
  // Of the box, among those of this process and its ancestors. An operation that spans calls of ours
  // is booked in the box that it began with, or not at all: a fork may come in between.
  std::atomic<uint32_t> box_number;
  // A hook waits for the box: the recorder's thread need not wait for the process to have lived a
  // while.
  std::atomic<bool> box_wanted;
  // How many forks lie between the first process that this one keeps the books of, and this one
  // (leak check only).
  uint32_t generation;
  // In a forked child the process that forked it.
  int32_t parent;
  // In a forked child the thread that forked, by its thread pointer: at first it is alone.
  void* forked_by;
  // Mean bytes between samples: what threads draw with; 0 = off.
  std::atomic<uint64_t> interval;
  // Live samples at which the interval is doubled next.
  std::atomic<uint64_t> thin_at;
  // For the next box's losses: see NoteUnrecorded.
  std::atomic<uint64_t> unrecorded_samples;
  std::atomic<uint64_t> unrecorded_bytes;

  Settings settings;
  Identity identity;
  // Valid from kRecording on.
  base::Path box_path;      // empty: a box without a name
  base::Path control_path;  // empty: none
  box::Mapping mapping;
  box::StackTable stacks;
  box::SampleTable samples;
};

extern constinit Recorder recorder __attribute__((visibility("hidden")));

// Reads the settings and decides whether this process is profiled. Idempotent; the first call wins,
// others meanwhile return at once and find the phase kNew.
void Prepare();

// True when samples can be recorded; has the box opened if need be, by the recorder's thread if there
// is one, but not for a child of vfork. Async-signal-safe; waits for it, a fraction of a millisecond,
// never without bound.
bool Ready();
// The same on the recorder's thread.
bool ReadyHere();

// An allocation that could not be recorded since there was no box yet: the box will count it as lost.
void NoteUnrecorded(uint64_t bytes, uint64_t weight);

// In a forked child: forgets the parent's box and waits for the first sample.
//
// If the fork came from a signal handler that interrupted this thread inside the recorder, the child
// returns into the middle of that operation. It then ends on a private copy of the parent's box, and
// the new start waits for that (Phase::kInterrupted, inside.h).
//
// The books of a leak check (Settings.leak_check) are no file but memory of which the child has a copy:
// it goes on with that, so that it knows the blocks that it inherited.
void StartOverInChild();
void FinishStartOver();

// At normal exit: stops recording, marks the box closed and removes its files.
void Close();

// Sets the interval from now on and notes it in the box.
void SetInterval(uint64_t bytes);
// Called when a sample found little room: if the table is filling up, doubles the interval, at least.
void Thin();

// Appends to the box's events. `text` may be empty.
void NoteEvent(box::EventKind kind, uint64_t a, uint64_t b, uint64_t c, std::string_view text = {},
               uint64_t usage = box::kUnknown);

// Fails never; a no-op while there is no box.
inline box::Header* Header() {
  return recorder.phase.load(std::memory_order_acquire) == Phase::kRecording
             ? &recorder.mapping.header()
             : nullptr;
}

}  // namespace heapflare::recorder
