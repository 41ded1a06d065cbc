// Tells a process from a copy of it that was made behind libc's back, in one load.
//
// A child of a raw fork-like clone(2) has a copy of our private state and shares the box with its
// parent: it must not write there. It finds the mark gone, since the mark lies in a page that the
// kernel empties in every child that gets a copy of the memory (MADV_WIPEONFORK, kernel 4.14). Where
// the kernel cannot do that, the process id is asked for instead, one system call.
//
// A child of vfork is no copy: it runs in the very memory of its parent, whose thread waits. A block
// that it allocates is the parent's, which frees it later, so it is booked like any other. What would
// go wrong there, opening files and starting looks at memory, asks IsOwnProcessId as well.
//
// Async-signal-safe. MarkOwnProcess runs once per process: in Prepare, and in a forked child.
#pragma once

#include <atomic>
#include <cstdint>

namespace heapflare::recorder {

struct OwnProcessMark {
  // In the page that is emptied; nullptr: the kernel cannot empty pages.
  std::atomic<uint32_t>* alive;
  int32_t process;
};
extern constinit OwnProcessMark own_process_mark __attribute__((visibility("hidden")));

void MarkOwnProcess();

// The process that was marked.
inline int32_t OwnProcessId() { return own_process_mark.process; }

// By the process id: true in none but the process itself. One system call.
bool IsOwnProcessId();

// False in a copy of the process.
inline bool InOwnProcess() {
  const std::atomic<uint32_t>* const alive = own_process_mark.alive;
  return alive != nullptr ? alive->load(std::memory_order_relaxed) != 0 : IsOwnProcessId();
}

}  // namespace heapflare::recorder
