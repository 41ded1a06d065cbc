#include "lib/recorder/thread.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include <atomic>
#include <cstdint>
#include <cstring>

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

void Enter(void (*run)()) {
  CloseInheritedDescriptors();
  base::SayThroughProcess();
  base::Syscall(SYS_prctl, PR_SET_NAME, base::Arg("heapflare"));
  run();
  base::Syscall(SYS_exit, 0);
}

// clone(2), with the child calling Enter(run) on `stack_top`. The child must not return from here:
// it has no frame.
long Clone(unsigned long flags, void* stack_top, void* thread_pointer, void (*run)()) {
  int* const id = reinterpret_cast<int*>(&thread_id);
#if defined(__x86_64__)
  long result = 0;
  register long r10 asm("r10") = base::Arg(id);  // where the id is cleared
  register long r8 asm("r8") = base::Arg(thread_pointer);
  register long r12 asm("r12") = reinterpret_cast<long>(run);
  register long r13 asm("r13") = reinterpret_cast<long>(&Enter);
  asm volatile(
      "syscall\n\t"
      "test %%rax, %%rax\n\t"
      "jnz 1f\n\t"
      "xor %%ebp, %%ebp\n\t"
      "mov %%r12, %%rdi\n\t"
      "call *%%r13\n\t"
      "hlt\n"
      "1:"
      : "=a"(result)
      : "a"(SYS_clone), "D"(flags), "S"(stack_top), "d"(id), "r"(r10), "r"(r8), "r"(r12), "r"(r13)
      : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long x8 asm("x8") = SYS_clone;
  register long x0 asm("x0") = static_cast<long>(flags);
  register long x1 asm("x1") = base::Arg(stack_top);
  register long x2 asm("x2") = base::Arg(id);
  register long x3 asm("x3") = base::Arg(thread_pointer);
  register long x4 asm("x4") = base::Arg(id);
  register long x9 asm("x9") = reinterpret_cast<long>(run);
  register long x10 asm("x10") = reinterpret_cast<long>(&Enter);
  asm volatile(
      "svc 0\n\t"
      "cbnz x0, 1f\n\t"
      "mov x29, xzr\n\t"
      "mov x0, x9\n\t"
      "blr x10\n\t"
      "brk 0\n"
      "1:"
      : "+r"(x0)
      : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x9), "r"(x10)
      : "x30", "memory");
  return x0;
#endif
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
    constexpr size_t kAll = kPage + kStackBytes + kThreadLocalBytes;
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
  const long result = Clone(kFlags, top, thread_pointer, run);
  base::Syscall(SYS_rt_sigprocmask, SIG_SETMASK, base::Arg(&before), 0, kSetBytes);
  return !base::Failed(result);
}

int ThreadOfRecorder() { return thread_id.load(std::memory_order_acquire); }

void ForgetThread() { thread_id.store(0, std::memory_order_relaxed); }

}  // namespace heapflare::recorder
