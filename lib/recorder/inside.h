// Marks this thread as inside the recorder, whose slow paths bear being interrupted anywhere: by a
// signal handler that enters them again, that never comes back, or that forks.
//
// A child that such a handler forked comes back into the middle of an operation on its parent's box.
// It ends that on a private copy, and starts over when it leaves (StartOverInChild): so everything
// that touches the box from a hook stands below one of these.
#pragma once

#include <cstdint>

#include "lib/recorder/recorder.h"
#include "lib/recorder/thread_state.h"

namespace heapflare::recorder {

class Inside {
 public:
  Inside() : first_(Enter()) {
    if (__builtin_expect(thread_state.start_over, 0) && first_) FinishStartOver();
  }
  ~Inside() {
    if (!first_) return;
    thread_state.entered_at = 0;
    if (__builtin_expect(thread_state.start_over, 0)) FinishStartOver();
  }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

  // False below a signal handler that interrupted the recorder.
  bool first() const { return first_; }

 private:
  bool Enter() const {
    ThreadState& state = thread_state;
    const auto here = reinterpret_cast<uint64_t>(this);
    // A handler runs further down. Who is further up on the same stack has left the one who entered
    // before by longjmp, out of a handler. (From further down that cannot be told; then this thread
    // leaves scans and looks to the recorder's.)
    const bool left =
        here >= state.entered_at && here < state.own_high && state.entered_at >= state.own_low;
    if (state.entered_at != 0 && !left) return false;
    state.entered_at = here;
    return true;
  }

  bool first_;
};

}  // namespace heapflare::recorder
