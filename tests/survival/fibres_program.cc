// Fibres: small stacks that the recorder is not told of. See program.h.
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "tests/survival/program.h"

namespace survival {
namespace {

constexpr size_t kPage = 4096;
constexpr int kFibres = 16;
constexpr unsigned char kPaint = 0xA7;

char* MapStack(size_t bytes, bool guarded) {
  const size_t guard = guarded ? kPage : 0;
  void* const memory =
      mmap(nullptr, bytes + guard, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED);
  if (guarded) CHECK(mprotect(memory, guard, PROT_NONE) == 0);
  return static_cast<char*>(memory) + guard;
}

// A context that runs `entry(argument)` on the stack and then goes on with `next`.
void Prepare(ucontext_t* fibre, char* stack, size_t bytes, ucontext_t* next, void (*entry)(int),
             int argument) {
  CHECK(getcontext(fibre) == 0);
  fibre->uc_stack.ss_sp = stack;
  fibre->uc_stack.ss_size = bytes;
  fibre->uc_link = next;
  makecontext(fibre, reinterpret_cast<void (*)()>(entry), 1, argument);
}

// --- Many fibres that take turns, on several threads ---

struct Carrier {
  ucontext_t scheduler;
  ucontext_t fibres[kFibres];
  int ended = 0;
};
thread_local Carrier own_carrier;
thread_local Carrier* carrier = nullptr;

[[gnu::noinline]] void Deeper(int index, int depth) {
  void* const block = Allocate();
  swapcontext(&carrier->fibres[index], &carrier->scheduler);
  if (depth > 0) Deeper(index, depth - 1);
  Free(block);
}

void RunFibre(int index) {
  for (int i = 0; i < 10; ++i) Deeper(index, 5);
  ++carrier->ended;
  for (;;) swapcontext(&carrier->fibres[index], &carrier->scheduler);
}

void* Carry(void* stack_bytes) {
  const auto bytes = reinterpret_cast<size_t>(stack_bytes);
  Carrier& own = own_carrier;
  carrier = &own;
  char* stacks[kFibres] = {};
  for (int i = 0; i < kFibres; ++i) {
    // Every other one without a guard page, or in the heap itself, as some libraries have them.
    stacks[i] = i % 4 == 3 ? static_cast<char*>(malloc(bytes)) : MapStack(bytes, i % 2 == 0);
    Prepare(&own.fibres[i], stacks[i], bytes, &own.scheduler, RunFibre, i);
  }
  while (own.ended < kFibres) {
    for (ucontext_t& fibre : own.fibres) swapcontext(&own.scheduler, &fibre);
  }
  for (int i = 0; i < kFibres; ++i) {
    if (i % 4 == 3) {
      free(stacks[i]);
    } else {
      munmap(stacks[i], bytes);
    }
  }
  return nullptr;
}

int TakeTurns(int argc, char** argv) {
  const intptr_t bytes = Number(argc, argv, 0, 16) << 10;
  void* const argument = reinterpret_cast<void*>(bytes);
  pthread_t threads[2];
  for (pthread_t& thread : threads) {
    CHECK(pthread_create(&thread, nullptr, Carry, argument) == 0);
  }
  Carry(argument);
  for (const pthread_t thread : threads) pthread_join(thread, nullptr);
  printf("fibres ended: %d\n", 3 * kFibres);
  return End();
}

// --- What the recorder needs of a stack ---

ucontext_t before;
ucontext_t measured;
char* measured_stack = nullptr;
constexpr size_t kMeasuredBytes = 256 << 10;
void (*to_measure)() = nullptr;
char* entered_at = nullptr;

[[gnu::noinline]] void Enter(int) {
  entered_at = static_cast<char*>(__builtin_frame_address(0));
  to_measure();
}

// Bytes of stack that `function` used, on a stack of its own.
size_t Measure(void (*function)()) {
  if (measured_stack == nullptr) measured_stack = MapStack(kMeasuredBytes, true);
  memset(measured_stack, kPaint, kMeasuredBytes);
  to_measure = function;
  Prepare(&measured, measured_stack, kMeasuredBytes, &before, Enter, 0);
  CHECK(swapcontext(&before, &measured) == 0);
  const char* touched = measured_stack;
  while (static_cast<unsigned char>(*touched) == kPaint) ++touched;
  return static_cast<size_t>(entered_at - touched);
}

void AllocateAndFree(size_t bytes) {
  void* volatile block = malloc(bytes);
  free(block);
}
void OneAllocation() { AllocateAndFree(kBlock); }
void ManyAllocations() {
  for (int i = 0; i < 20'000; ++i) AllocateAndFree(kBlock);
}
void LargeRequest() { AllocateAndFree(size_t{512} << 20); }

void Report(const char* what, void (*function)()) {
  dprintf(2, "stack %s %zu\n", what, Measure(function));
}

// Reports on stderr how many bytes of stack each kind of operation takes; the driver compares.
int StackUse(int, char**) {
  Report("first", OneAllocation);
  Report("again", OneAllocation);
  // By now the recorder's thread watches the memory.
  usleep(100'000);
  Report("many", ManyAllocations);
  Report("large", LargeRequest);
  // The child's first sample opens its box.
  const pid_t child = fork();
  if (child == 0) {
    Report("child", ManyAllocations);
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  printf("measured\n");
  return 0;
}

// --- Frames without unwind information, and a frame pointer that leads astray ---

#if defined(__x86_64__)
// Calls `function` from code that no table describes, with a frame pointer of the caller's choice: an
// unwinder that guesses follows it.
extern "C" void survival_call_astray(void (*function)(), const void* frame_pointer);
asm(R"(
  .text
  .globl survival_call_astray
  .type survival_call_astray, @function
survival_call_astray:
  push %rbp
  mov %rsi, %rbp
  call *%rdi
  pop %rbp
  ret
  .size survival_call_astray, . - survival_call_astray
  .section .note.GNU-stack,"",@progbits
  .text
)");

char* neighbour = nullptr;
char* fibre_stack = nullptr;
constexpr size_t kAstrayBytes = 32 << 10;

void AllocateOnce() { Free(Allocate()); }

// What a frame pointer leads to: the frame pointer of the caller, and a return address.
void WriteFrame(char* at) {
  void* const frame[2] = {at + 64, __builtin_return_address(0)};
  memcpy(at, frame, sizeof(frame));
}

void GoAstray(int) {
  // While the neighbour is mapped, the stack and it look like one, and the guess is a good one.
  for (int at = 256; at <= 1024; at += 64) WriteFrame(neighbour + at);
  survival_call_astray(AllocateOnce, neighbour + 256);
  munmap(neighbour, kAstrayBytes);
  for (int at = 256; at <= 1024; at += 64) survival_call_astray(AllocateOnce, neighbour + at);
}

void* Astray(void*) {
  for (int i = 0; i < 20; ++i) {
    // The stack grows down from the neighbour's first byte.
    fibre_stack = MapStack(2 * kAstrayBytes, false);
    neighbour = fibre_stack + kAstrayBytes;
    ucontext_t here;
    ucontext_t fibre;
    Prepare(&fibre, fibre_stack, kAstrayBytes, &here, GoAstray, 0);
    CHECK(swapcontext(&here, &fibre) == 0);
    munmap(fibre_stack, kAstrayBytes);
  }
  return nullptr;
}

int FramePointerAstray(int, char**) {
  Astray(nullptr);
  pthread_t thread;
  CHECK(pthread_create(&thread, nullptr, Astray, nullptr) == 0);
  pthread_join(thread, nullptr);
  printf("came back\n");
  return End();
}
#else
int FramePointerAstray(int, char**) {
  printf("came back\n");
  return End();
}
#endif

constexpr Scenario kScenarios[] = {
    {"take_turns", TakeTurns},
    {"stack_use", StackUse},
    {"frame_pointer_astray", FramePointerAstray},
};

}  // namespace
}  // namespace survival

int main(int argc, char** argv) { return survival::RunScenario(survival::kScenarios, argc, argv); }
