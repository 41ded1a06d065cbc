// Stops the process's threads for a moment, from within the process, and hands out their registers.
//
// A thread cannot trace its own process, so a helper does it, the collector: a process of its own
// (raw clone, no libc) that shares the memory, and is a child that sends no signal and that wait(2)
// does not find without __WALL. It
//   1. seizes all threads, which does not stop them, so that the stop itself is short,
//   2. interrupts all, waits until they stand, and looks for new ones until there are none,
//   3. reads their registers, the vector ones too: compilers keep pointers there,
//   4. calls `while_stopped`, and ends, whereby the kernel lets all go at once. To let them go one by
//      one took twenty times as long under load: who is let go first takes the processor away.
// A thread that does not stop in time (it sleeps in the kernel where nothing wakes it, or waits for
// a vfork child) runs on unseen. A thread that was about to take a signal gets it afterwards: the
// collector only looks at the report of a stop, which thereby keeps the signal. One
// that stands stopped (SIGSTOP) stays so. If the collector dies the kernel lets all threads run on
// (no PTRACE_O_EXITKILL); if it does not end in time its owner kills it.
//
// What a service may notice: calls that the kernel does not restart after a stop return EINTR:
// epoll_wait, semop, sigtimedwait and their like (signal(7), "Interruption of system calls and library
// functions by stop signals").
//
// The kernel may refuse: another tracer, a process that is not dumpable, seccomp, yama
// (ptrace_scope 1 and more). Under yama 1 a process can allow it (PR_SET_PTRACER), but what it had
// allowed before can be neither read nor restored: so only a process that is about to end may.
//
// A seccomp filter that kills on ptrace kills the collector, and kernels before 5.16 then kill who
// shares its memory. Ask MayTryPtrace first.
//
// Not thread-safe: one user at a time, not in a signal handler.
#pragma once

#include <cstddef>
#include <cstdint>

namespace heapflare::reach {

struct StoppedThread {
  int id;
  bool seen;  // it was stopped and its registers are here
  uint64_t stack_pointer;
  uint64_t thread_pointer;
  const std::byte* registers;  // of all kinds, multiples of 8 bytes; they may hold references
  uint32_t register_bytes;

  // The collector's.
  enum class State : uint32_t { kSeized, kInterrupted, kStopped, kGone };
  State state;
};

struct StoppedThreads {
  const StoppedThread* threads;
  uint32_t count;
};

struct StopOptions {
  // Of the calling process (not of the collector), its number and the thread that is left alone.
  int process = 0;
  int spared_thread = 0;  // 0: none is
  // For all threads to stop, after the first was interrupted. Who has not by then runs on.
  int64_t stop_budget_ns = 2'000'000;
  // Allow the collector to trace, see above. Undone at the end.
  bool declare_tracer = false;
  // No ptrace at all: `while_stopped` is called with no threads.
  bool without_stopping = false;
  // Runs in the collector, on a stack of kCollectorStack, without libc. May be nullptr.
  void (*while_stopped)(void* context, const StoppedThreads& threads) = nullptr;
  void* context = nullptr;
};

inline constexpr size_t kCollectorStack = 128 << 10;

struct StopResult {
  // 0, or negative errno of what refused: -EPERM ptrace, -ENXIO a /proc of another PID namespace.
  // Then no thread was stopped, and `while_stopped` was called all the same, without threads.
  int error;
  uint32_t threads;         // seen
  uint32_t threads_unseen;  // that did not stop in time, or could not be traced
  int64_t stopped_ns;       // when the first was interrupted, CLOCK_MONOTONIC; 0: none was
  int64_t released_ns;      // when the collector was done with them
};

class Collector {
 public:
  Collector() = default;
  ~Collector();
  Collector(const Collector&) = delete;
  Collector& operator=(const Collector&) = delete;

  // Starts it. 0 or negative errno. It must have ended before *this does.
  int Start(const StopOptions& options) {
    const int error = Prepare(options);
    return error != 0 ? error : Start();
  }
  // The two steps of that: afterwards its memory is known; afterwards it is at work.
  int Prepare(const StopOptions& options);
  int Start();
  // Waits for its end at most until `deadline_ns` (CLOCK_MONOTONIC; 0: only looks). True if it has
  // ended, and is reaped.
  bool Wait(int64_t deadline_ns);
  // Ends it; its threads run on. True if it has ended.
  bool Kill();

  // In a forked child, whose parent's it is.
  void Forget() {
    process_ = 0;
    Release();
  }

  bool running() const { return process_ != 0; }
  // After its end. False: it was killed, and the result is what it had got to.
  bool finished() const;
  StopResult result() const;

  // Its memory: stack and registers.
  uint64_t memory_start() const { return reinterpret_cast<uint64_t>(memory_); }
  uint64_t memory_bytes() const { return bytes_; }

 private:
  struct Shared;
  static void Run(void* self);
  void Collect();
  void Release();

  std::byte* memory_ = nullptr;
  uint64_t bytes_ = 0;
  Shared* shared_ = nullptr;
  int process_ = 0;
};

enum class PtraceStanding : uint32_t {
  kFree,       // no filter: it can be tried
  kUnknown,    // there is a seccomp filter; see ProbePtrace
  kForbidden,  // found out by ProbePtrace
};
// Of the calling thread and what it clones.
PtraceStanding MayTryPtrace();
// To be called in a forked copy (with memory of its own), which a filter may kill: tries ptrace on
// nobody. True if the filter lets it through.
bool ProbePtrace();

}  // namespace heapflare::reach
