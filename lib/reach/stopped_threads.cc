#include "lib/reach/stopped_threads.h"

#include <elf.h>
#include <errno.h>
#include <linux/ptrace.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <atomic>

#include "lib/base/clone.h"
#include "lib/base/directory.h"
#include "lib/base/line_reader.h"
#include "lib/base/parse.h"
#include "lib/base/syscall.h"
#include "lib/base/text.h"

namespace heapflare::reach {

struct Collector::Shared {
  StopOptions options;
  StopResult result;
  std::atomic<uint32_t> go;
  std::atomic<uint32_t> finished;
  int id;  // the collector's, cleared by the kernel at its end
  uint32_t capacity;
  uint32_t count;
  StoppedThread* threads;
  std::byte* registers;
  std::byte* registers_end;
};

namespace {

using State = StoppedThread::State;

constexpr size_t kPage = 4096;
// XSTATE has 2.7 KiB with AVX-512, 11 KiB with AMX.
constexpr size_t kMostRegisterBytes = 16 << 10;
constexpr int64_t kMillisecond = 1'000'000;
constexpr size_t kSetBytes = 8;

long Ptrace(long request, int thread, long address = 0, long data = 0) {
  return base::Syscall(SYS_ptrace, request, thread, address, data);
}

long Wait4(int process, int* status, int options) {
  return base::Syscall(SYS_wait4, process, base::Arg(status), options, 0);
}

void Nap(int64_t ns) {
  const timespec pause = {ns / 1'000'000'000, ns % 1'000'000'000};
  base::Syscall(SYS_nanosleep, base::Arg(&pause));
}

// A thread that has ended is listed until it is reaped, and may not be traced.
bool HasEnded(int process, int thread) {
  base::Text<64> path("/proc/");
  path.AddNumber(static_cast<uint64_t>(process)).Add("/task/");
  path.AddNumber(static_cast<uint64_t>(thread)).Add("/stat");
  char text[512];
  const long bytes = base::ReadFile(path.c_str(), text, sizeof(text));
  if (bytes <= 0) return true;
  const std::string_view stat(text, static_cast<size_t>(bytes));
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string_view::npos || name_end + 2 >= stat.size()) return true;
  const char state = stat[name_end + 2];
  return state == 'Z' || state == 'X';
}

bool ProcIsOurs(int process) {
  char text[32];
  const long bytes = base::ReadLink("/proc/self", text, sizeof(text));
  if (bytes <= 0) return false;
  const auto number = base::ParseNumber({text, static_cast<size_t>(bytes)});
  return number && *number == static_cast<uint64_t>(process);
}

void TaskDirectory(int process, base::Text<64>* path) {
  path->Add("/proc/").AddNumber(static_cast<uint64_t>(process)).Add("/task");
}

uint32_t CountThreads(int process) {
  base::Text<64> path;
  TaskDirectory(process, &path);
  uint32_t count = 0;
  base::ForEachEntry(path.c_str(), [&count](std::string_view) {
    ++count;
    return true;
  });
  return count;
}

// Appends a set of registers at *next, as large as the kernel has it.
bool ReadSet(int thread, long set, std::byte** next, const std::byte* end) {
  iovec memory = {.iov_base = *next, .iov_len = static_cast<size_t>(end - *next)};
  if (Ptrace(PTRACE_GETREGSET, thread, set, base::Arg(&memory)) != 0) return false;
  *next += (memory.iov_len + 7) / 8 * 8;
  return true;
}

uint64_t WordAt(const std::byte* registers, size_t index) {
  return reinterpret_cast<const uint64_t*>(registers)[index];
}

bool ReadRegisters(StoppedThread* thread, std::byte** next, const std::byte* end) {
  std::byte* const start = *next;
  if (!ReadSet(thread->id, NT_PRSTATUS, next, end)) return false;
#if defined(__x86_64__)
  constexpr size_t kStackPointer = 19;  // of struct user_regs_struct
  constexpr size_t kThreadPointer = 21;
  thread->stack_pointer = WordAt(start, kStackPointer);
  thread->thread_pointer = WordAt(start, kThreadPointer);
  constexpr long kExtendedState = 0x202;  // NT_X86_XSTATE
  if (!ReadSet(thread->id, kExtendedState, next, end)) ReadSet(thread->id, NT_PRFPREG, next, end);
#elif defined(__aarch64__)
  constexpr size_t kStackPointer = 31;  // of struct user_pt_regs
  constexpr long kThreadLocal = 0x401;  // NT_ARM_TLS
  thread->stack_pointer = WordAt(start, kStackPointer);
  const std::byte* const local = *next;
  if (ReadSet(thread->id, kThreadLocal, next, end)) thread->thread_pointer = WordAt(local, 0);
  ReadSet(thread->id, NT_PRFPREG, next, end);
#endif
  thread->registers = start;
  thread->register_bytes = static_cast<uint32_t>(*next - start);
  return true;
}

// What the collector does to the threads.
class Stopping {
 public:
  Stopping(const StopOptions* options, StopResult* result, StoppedThread* threads,
           uint32_t capacity, uint32_t* count, std::byte* registers, const std::byte* registers_end)
      : options_(*options),
        result_(result),
        threads_(threads),
        capacity_(capacity),
        count_(*count),
        registers_(registers),
        registers_end_(registers_end) {}

  // Seizes those that are not yet. The number of new ones, or negative errno if that is refused.
  int SeizeNew() {
    base::Text<64> path;
    TaskDirectory(options_.process, &path);
    int fresh = 0;
    int error = 0;
    const int listed = base::ForEachEntry(path.c_str(), [&](std::string_view name) {
      const auto number = base::ParseNumber(name);
      if (!number) return true;
      const int id = static_cast<int>(*number);
      if (id == options_.spared_thread || IsKnown(id)) return true;
      const long seized = Ptrace(PTRACE_SEIZE, id);
      if (seized == 0) {
        if (count_ == capacity_) {
          ++unseen_;  // the collector's end lets it go
          return true;
        }
        threads_[count_++] = {};
        threads_[count_ - 1].id = id;
        ++fresh;
      } else if (seized == -EPERM || seized == -EACCES || seized == -ENOSYS) {
        if (HasEnded(options_.process, id)) return true;
        if (count_ == 0) {
          error = static_cast<int>(seized);
          return false;
        }
        ++unseen_;
      }
      return true;
    });
    if (error != 0) return error;
    return listed < 0 ? listed : fresh;
  }

  void InterruptNew() {
    for (uint32_t i = 0; i < count_; ++i) {
      StoppedThread& thread = threads_[i];
      if (thread.state != State::kSeized) continue;
      thread.state = Ptrace(PTRACE_INTERRUPT, thread.id) == 0 ? State::kInterrupted : State::kGone;
    }
  }

  // Until all stand, or the time is up.
  void AwaitStops(int64_t deadline) {
    for (;;) {
      uint32_t running = 0;
      for (uint32_t i = 0; i < count_; ++i) {
        if (threads_[i].state != State::kInterrupted) continue;
        if (!HasStopped(&threads_[i])) {
          ++running;
        } else if (threads_[i].state == State::kStopped) {
          // While others are still on their way.
          threads_[i].seen = ReadRegisters(&threads_[i], &registers_, registers_end_);
        }
      }
      if (running == 0 || base::MonotonicNanoseconds() >= deadline) return;
      // They need the processor for it.
      Nap(20'000);
    }
  }

  void CountThem() {
    result_->threads = 0;
    result_->threads_unseen = unseen_;
    for (uint32_t i = 0; i < count_; ++i) {
      if (threads_[i].seen) ++result_->threads;
      if (!threads_[i].seen && threads_[i].state != State::kGone) ++result_->threads_unseen;
    }
  }

 private:
  bool IsKnown(int id) const {
    for (uint32_t i = 0; i < count_; ++i) {
      // The list has the same order each time, so it is mostly the next.
      const uint32_t at = (i + next_known_) % count_;
      if (threads_[at].id != id) continue;
      next_known_ = at + 1;
      return threads_[at].state != State::kGone;
    }
    return false;
  }

  // Leaves the report with the kernel: a thread whose tracer has taken it and ends loses the signal
  // that it stopped for.
  static bool HasStopped(StoppedThread* thread) {
    siginfo_t report = {};
    constexpr int kLook = WSTOPPED | WEXITED | WNOHANG | WNOWAIT | __WALL;
    const long error = base::Syscall(SYS_waitid, P_PID, thread->id, base::Arg(&report), kLook, 0);
    if (error == 0 && report.si_pid == 0) return false;
    if (error != 0 || (report.si_code != CLD_TRAPPED && report.si_code != CLD_STOPPED)) {
      thread->state = State::kGone;
      return true;
    }
    thread->state = State::kStopped;
    return true;
  }

  const StopOptions& options_;
  StopResult* result_;
  StoppedThread* threads_;
  uint32_t capacity_;
  uint32_t& count_;
  std::byte* registers_;
  const std::byte* registers_end_;
  uint32_t unseen_ = 0;
  mutable uint32_t next_known_ = 0;
};

}  // namespace

Collector::~Collector() {
  if (running()) Kill();
  if (!running()) Release();
}

void Collector::Release() {
  if (memory_ != nullptr) base::Unmap(memory_, bytes_);
  memory_ = nullptr;
  shared_ = nullptr;
  bytes_ = 0;
}

int Collector::Prepare(const StopOptions& options) {
  if (running()) return -EBUSY;
  Release();
  // Threads that start meanwhile have room too.
  const uint32_t capacity = options.without_stopping ? 0 : CountThreads(options.process) * 2 + 64;
  constexpr size_t kHead = (sizeof(Shared) + kPage - 1) / kPage * kPage;
  const size_t table = (capacity * sizeof(StoppedThread) + kPage - 1) / kPage * kPage;
  const size_t bytes = kPage + kCollectorStack + kHead + table + capacity * kMostRegisterBytes;
  void* const memory = base::Map(nullptr, bytes, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK);
  if (memory == nullptr) return -ENOMEM;
  memory_ = static_cast<std::byte*>(memory);
  bytes_ = bytes;
  base::Syscall(SYS_mprotect, base::Arg(memory), kPage, PROT_NONE);
  std::byte* const top = memory_ + kPage + kCollectorStack;
  shared_ = reinterpret_cast<Shared*>(top);
  shared_->options = options;
  // The numbers of threads in it would be others'.
  if (!options.without_stopping && !ProcIsOurs(options.process)) shared_->result.error = -ENXIO;
  shared_->capacity = capacity;
  shared_->threads = reinterpret_cast<StoppedThread*>(top + kHead);
  shared_->registers = top + kHead + table;
  shared_->registers_end = memory_ + bytes;
  return 0;
}

int Collector::Start() {
  std::byte* const top = memory_ + kPage + kCollectorStack;
  const uint64_t all = ~uint64_t{0};
  uint64_t before = 0;
  base::Syscall(SYS_rt_sigprocmask, SIG_SETMASK, base::Arg(&all), base::Arg(&before), kSetBytes);
  const long id = base::CloneOnStack(
      {.flags = CLONE_VM | CLONE_UNTRACED | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID,
       .stack_top = top,
       .id = &shared_->id,
       .run = &Collector::Run,
       .argument = this});
  base::Syscall(SYS_rt_sigprocmask, SIG_SETMASK, base::Arg(&before), 0, kSetBytes);
  if (base::Failed(id)) {
    Release();
    return static_cast<int>(id);
  }
  process_ = static_cast<int>(id);
  if (shared_->options.declare_tracer) base::Syscall(SYS_prctl, PR_SET_PTRACER, id);
  shared_->go.store(1, std::memory_order_release);
  base::FutexWake(reinterpret_cast<uint32_t*>(&shared_->go), 1);
  return 0;
}

void Collector::Run(void* self) {
  static_cast<Collector*>(self)->Collect();
  base::Syscall(SYS_exit, 0);
}

void Collector::Collect() {
  Shared& shared = *shared_;
  base::Syscall(SYS_prctl, PR_SET_NAME, base::Arg("heapflare-stop"));
  // If its maker ends it must not outlive it.
  base::Syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL);
  // Where that is allowed, ahead of the threads that it is about to stop.
  base::Syscall(SYS_setpriority, PRIO_PROCESS, 0, -20);
  // Naps are as short as they are meant.
  base::Syscall(SYS_prctl, PR_SET_TIMERSLACK, 1);
  for (int i = 0; shared.go.load(std::memory_order_acquire) == 0 && i < 100; ++i) {
    base::FutexWait(reinterpret_cast<uint32_t*>(&shared.go), 0, 10 * kMillisecond);
  }
  const StopOptions& options = shared.options;
  Stopping stopping(&shared.options, &shared.result, shared.threads, shared.capacity, &shared.count,
                    shared.registers, shared.registers_end);
  int error = 0;
  if (!options.without_stopping && shared.result.error == 0) {
    error = stopping.SeizeNew();
    shared.result.error = error < 0 ? error : 0;
  }
  if (error > 0) {
    shared.result.stopped_ns = base::MonotonicNanoseconds();
    const int64_t deadline = shared.result.stopped_ns + options.stop_budget_ns;
    do {
      stopping.InterruptNew();
      stopping.AwaitStops(deadline);
    } while (base::MonotonicNanoseconds() < deadline && stopping.SeizeNew() > 0);
    stopping.CountThem();
  }
  const StoppedThreads threads = {.threads = shared.threads, .count = shared.count};
  if (options.while_stopped != nullptr) options.while_stopped(options.context, threads);
  // The end of this process lets them go.
  if (error > 0) shared.result.released_ns = base::MonotonicNanoseconds();
  shared.finished.store(1, std::memory_order_release);
}

bool Collector::Wait(int64_t deadline_ns) {
  while (running()) {
    const int id = std::atomic_ref<int>(shared_->id).load(std::memory_order_acquire);
    // Its memory is ours again when the kernel has cleared the word; it is reaped soon after.
    int status = 0;
    const long got = Wait4(process_, &status, __WCLONE | (id == 0 ? 0 : WNOHANG));
    if (got == process_ || got == -ECHILD) {
      if (shared_->options.declare_tracer) base::Syscall(SYS_prctl, PR_SET_PTRACER, 0);
      process_ = 0;
      return true;
    }
    const int64_t left = deadline_ns - base::MonotonicNanoseconds();
    if (left <= 0) return false;
    if (id != 0) {
      base::FutexWait(reinterpret_cast<uint32_t*>(&shared_->id), static_cast<uint32_t>(id), left);
    }
  }
  return true;
}

bool Collector::Kill() {
  if (!running()) return true;
  // Its number is nobody else's as long as it is not reaped.
  if (std::atomic_ref<int>(shared_->id).load(std::memory_order_acquire) != 0) {
    base::Syscall(SYS_kill, process_, SIGKILL);
  }
  return Wait(base::MonotonicNanoseconds() + 1000 * kMillisecond);
}

bool Collector::finished() const {
  return shared_ != nullptr && shared_->finished.load(std::memory_order_acquire) != 0;
}

StopResult Collector::result() const { return shared_ == nullptr ? StopResult{} : shared_->result; }

PtraceStanding MayTryPtrace() {
  char buffer[512];
  base::LineReader lines(base::Open("/proc/thread-self/status", O_RDONLY), buffer, sizeof(buffer));
  for (std::string_view line; lines.Next(&line);) {
    std::string_view name;
    base::TakeUntil(':', &line, &name);
    if (name != "Seccomp") continue;
    return base::TrimSpace(line) == "0" ? PtraceStanding::kFree : PtraceStanding::kUnknown;
  }
  return lines.ok() && lines.complete() ? PtraceStanding::kFree : PtraceStanding::kUnknown;
}

bool ProbePtrace() {
  // No thread has the number 0: without a filter the answer is ESRCH.
  return Ptrace(PTRACE_INTERRUPT, 0) == -ESRCH;
}

}  // namespace heapflare::reach
