#include "lib/recorder/requests.h"

#include "lib/base/syscall.h"
#include "lib/recorder/ramp_stop.h"
#include "lib/recorder/recorder.h"
#include "lib/recorder/thread.h"

namespace heapflare::recorder {

constinit Requests requests;

namespace {

// Until there is a box, whose doorbell other processes can reach.
constinit uint32_t private_doorbell = 0;

uint32_t& Doorbell() {
  box::Header* header = Header();
  return header == nullptr ? private_doorbell : header->doorbell;
}

const volatile uint32_t* Word(std::atomic<uint32_t>& word) {
  return reinterpret_cast<const volatile uint32_t*>(&word);
}

// What the thread saw of the doorbell when it last woke: a ring while it is at work is not lost.
constinit uint32_t heard = 0;
constinit uint32_t* heard_at = nullptr;

}  // namespace

void Ring() {
  // Both: the thread may have gone to sleep before the box was opened.
  for (uint32_t* bell : {&private_doorbell, &Doorbell()}) {
    box::Atomic(*bell).fetch_add(1, std::memory_order_release);
    base::FutexWake(bell, 1);
    if (&Doorbell() == &private_doorbell) break;
  }
}

void SleepUntilRung(int64_t timeout_ns) {
  uint32_t& bell = Doorbell();
  if (heard_at != &bell) {
    heard_at = &bell;
    heard = box::Atomic(bell).load(std::memory_order_acquire);
    // Whoever rang at the other one is served first.
    return;
  }
  base::FutexWait(&bell, heard, timeout_ns);
  heard = box::Atomic(bell).load(std::memory_order_acquire);
}

int Requests::Fill(const DumpRequest& request, State state) {
  for (int i = 0; i < kSlots; ++i) {
    Slot& slot = slots_[i];
    uint32_t free = kFree;
    if (!slot.state.compare_exchange_strong(free, kFilling, std::memory_order_acquire)) continue;
    slot.request = request;
    slot.path.Clear();
    slot.request.path = slot.path.Add(request.path).view();
    slot.state.store(state, std::memory_order_release);
    Ring();
    return i;
  }
  return -1;
}

bool Requests::Wait(int number, int64_t timeout_ns, DumpResult* result) {
  Slot& slot = slots_[number];
  const int64_t end = base::MonotonicNanoseconds() + timeout_ns;
  const int process = base::ProcessId();
  for (;;) {
    // A child that a signal handler forked meanwhile: its slots are empty, nobody serves this one.
    if (base::ProcessId() != process) return false;
    uint32_t state = slot.state.load(std::memory_order_acquire);
    if (state == kDone) {
      if (result != nullptr) *result = slot.result;
      slot.state.store(kFree, std::memory_order_release);
      return true;
    }
    // Without a clock there is no bound, so there is no waiting.
    const int64_t now = base::MonotonicNanoseconds();
    const int64_t left = ThreadOfRecorder() == 0 || now == 0 ? 0 : end - now;
    if (left <= 0) {
      if (state == kWanted || state == kRunning) {
        if (slot.state.compare_exchange_strong(state, state == kWanted ? kFree : kAbandoned)) {
          return false;
        }
      }
      continue;  // it was done, or begun, at this moment
    }
    // In slices, in case the recorder's thread has ended meanwhile.
    constexpr int64_t kSlice = 100'000'000;
    base::FutexWait(Word(slot.state), state, left < kSlice ? left : kSlice);
  }
}

bool Requests::Serve() {
  bool any = false;
  for (Slot& slot : slots_) {
    uint32_t state = slot.state.load(std::memory_order_acquire);
    if (state != kWanted && state != kLeft) continue;
    const State begun = state == kWanted ? kRunning : kAbandoned;
    if (!slot.state.compare_exchange_strong(state, begun, std::memory_order_acquire)) continue;
    any = true;
    slot.result = {};
    WriteDump(slot.request, &slot.result);
    ramp_stop.End(slot.request.ramp_stop);
    state = kRunning;
    if (!slot.state.compare_exchange_strong(state, kDone, std::memory_order_release)) {
      slot.state.store(kFree, std::memory_order_release);
    }
    base::FutexWake(Word(slot.state), 64);
  }
  return any;
}

void Requests::Clear() {
  for (Slot& slot : slots_) slot.state.store(kFree, std::memory_order_relaxed);
}

}  // namespace heapflare::recorder
