#include "lib/recorder/thread.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include <atomic>
#include <cstdint>
#include <cstring>

#include "lib/base/clone.h"
#include "lib/base/directory.h"
#include "lib/base/parse.h"
#include "lib/base/say.h"
#include "lib/base/syscall.h"

namespace heapflare::recorder {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kStackBytes = 128 << 10;
// Below and above the address that the thread pointer leads to.
constexpr size_t kThreadLocalBytes = 2 * kPage;
constexpr size_t kAll = kPage + kStackBytes + kThreadLocalBytes;

constinit std::byte* stack = nullptr;  // guard page, stack, thread-local page
// Written by the kernel: set at the start, cleared at the thread's end.
constinit std::atomic<int> thread_id = 0;

// The table is a copy of the service's as of now.
void CloseInheritedDescriptors() {
  constexpr long kCloseRange = 436;  // close_range(2), kernel 5.9
  if (base::Syscall(kCloseRange, 0, ~0U, 0) == 0) return;
  base::ForEachEntry("/proc/thread-self/fd", [](std::string_view name) {
    const auto fd = base::ParseNumber(name);
    if (fd) base::Close(static_cast<int>(*fd));
    return true;
  });
}

// What the thread runs.
using Work = void (*)();
constinit Work work = nullptr;

void Enter(void* /*argument*/) {
  CloseInheritedDescriptors();
  base::SayThroughProcess();
  base::Syscall(SYS_prctl, PR_SET_NAME, base::Arg("heapflare"));
  work();
  base::Syscall(SYS_exit, 0);
}

// A thread control block as far as compiled code looks into it: x86_64 finds a pointer to it in its
// first word, and the stack protector's value behind.
void PrepareThreadLocal(std::byte* pointer) {
  memset(pointer - kPage, 0, kThreadLocalBytes);
  *reinterpret_cast<std::byte**>(pointer) = pointer;
}

}  // namespace

bool StartThread(void (*run)()) {
  // In a forked child the memory is there and nobody uses it.
  if (stack == nullptr) {
    void* const memory = base::Map(nullptr, kAll, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK);
    if (memory == nullptr) return false;
    base::Syscall(SYS_mprotect, base::Arg(memory), kPage, PROT_NONE);
    stack = static_cast<std::byte*>(memory);
  }
  std::byte* const top = stack + kPage + kStackBytes;
  std::byte* const thread_pointer = top + kPage;
  PrepareThreadLocal(thread_pointer);

  constexpr unsigned long kFlags = CLONE_VM | CLONE_FS | CLONE_SIGHAND | CLONE_THREAD |
                                   CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID |
                                   CLONE_CHILD_CLEARTID;
  // The thread inherits the mask.
  constexpr size_t kSetBytes = 8;
  const uint64_t all = ~uint64_t{0};
  uint64_t before = 0;
  base::Syscall(SYS_rt_sigprocmask, SIG_SETMASK, base::Arg(&all), base::Arg(&before), kSetBytes);
  work = run;
  const long result = base::CloneOnStack({.flags = kFlags,
                                          .stack_top = top,
                                          .id = reinterpret_cast<int*>(&thread_id),
                                          .thread_pointer = thread_pointer,
                                          .run = Enter});
  base::Syscall(SYS_rt_sigprocmask, SIG_SETMASK, base::Arg(&before), 0, kSetBytes);
  return !base::Failed(result);
}

void MemoryOfThread(uint64_t* start, uint64_t* bytes) {
  *start = reinterpret_cast<uint64_t>(stack);
  *bytes = stack == nullptr ? 0 : kAll;
}

int ThreadOfRecorder() { return thread_id.load(std::memory_order_acquire); }

void ForgetThread() { thread_id.store(0, std::memory_order_relaxed); }

}  // namespace heapflare::recorder
