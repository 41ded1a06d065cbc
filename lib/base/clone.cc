#include "lib/base/clone.h"

#include "lib/base/syscall.h"

namespace heapflare::base {

// The child must not return from here: it has no frame.
long CloneOnStack(const CloneOptions& options) {
#if defined(__x86_64__)
  long result = 0;
  register long r10 asm("r10") = Arg(options.id);
  register long r8 asm("r8") = Arg(options.thread_pointer);
  register long r12 asm("r12") = reinterpret_cast<long>(options.run);
  register long r13 asm("r13") = Arg(options.argument);
  asm volatile(
      "syscall\n\t"
      "test %%rax, %%rax\n\t"
      "jnz 1f\n\t"
      "xor %%ebp, %%ebp\n\t"
      "mov %%r13, %%rdi\n\t"
      "call *%%r12\n\t"
      "hlt\n"
      "1:"
      : "=a"(result)
      : "a"(SYS_clone), "D"(options.flags), "S"(options.stack_top), "d"(options.id), "r"(r10),
        "r"(r8), "r"(r12), "r"(r13)
      : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long x8 asm("x8") = SYS_clone;
  register long x0 asm("x0") = static_cast<long>(options.flags);
  register long x1 asm("x1") = Arg(options.stack_top);
  register long x2 asm("x2") = Arg(options.id);
  register long x3 asm("x3") = Arg(options.thread_pointer);
  register long x4 asm("x4") = Arg(options.id);
  register long x9 asm("x9") = Arg(options.argument);
  register long x10 asm("x10") = reinterpret_cast<long>(options.run);
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

long ForkWithoutLibc(unsigned long flags) {
  return Syscall(SYS_clone, static_cast<long>(flags), 0, 0, 0, 0);
}

}  // namespace heapflare::base
