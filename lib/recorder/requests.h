// Dumps that are wanted: handed by any thread to the recorder's own, which writes them.
//
// A few slots of fixed size. Whoever asks may wait for the result, never without bound; one who
// gives up leaves the slot to the recorder's thread. Async-signal-safe but for the waiting. Nothing
// allocates.
#pragma once

#include <atomic>
#include <cstdint>

#include "lib/recorder/dump.h"

namespace heapflare::recorder {

class Requests {
 public:
  // Puts the request into a slot and wakes the recorder's thread. The slot's number, for Wait, which
  // has to follow; or -1: all are taken.
  int Post(const DumpRequest& request) { return Fill(request, kWanted); }

  // The same, and nobody waits: the recorder's thread frees the slot. False: all are taken.
  bool Leave(const DumpRequest& request) { return Fill(request, kLeft) >= 0; }

  // Waits for the result and frees the slot. False: not within `timeout_ns`.
  bool Wait(int slot, int64_t timeout_ns, DumpResult* result);

  // On the recorder's thread: writes what was asked for. True if there was something.
  bool Serve();

  // In a forked child, where nobody waits.
  void Clear();

 private:
  // kLeft, kAbandoned: as kWanted, kRunning, but nobody waits (any more).
  enum State : uint32_t { kFree, kFilling, kWanted, kLeft, kRunning, kDone, kAbandoned };
  struct Slot {
    std::atomic<uint32_t> state;
    DumpRequest request;
    base::Path path;  // what request.path views
    DumpResult result;
  };
  static constexpr int kSlots = 4;

  int Fill(const DumpRequest& request, State state);

  Slot slots_[kSlots] = {};
};

extern constinit Requests requests __attribute__((visibility("hidden")));

// Wakes the recorder's thread.
void Ring();

// On the recorder's thread: sleeps until somebody rings, at most `timeout_ns`.
void SleepUntilRung(int64_t timeout_ns);

}  // namespace heapflare::recorder
