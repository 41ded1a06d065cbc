#include "lib/recorder/signal_trigger.h"

#include <signal.h>

#include <atomic>

#include "lib/base/say.h"
#include "lib/base/syscall.h"
#include "lib/recorder/own_process.h"
#include "lib/recorder/requests.h"

namespace heapflare::recorder {
namespace {

constinit std::atomic<bool> signalled = false;

void Handle(int /*signal*/) {
  signalled.store(true, std::memory_order_release);
  if (IsOwnProcessId()) Ring();
}

// The kernel's struct sigaction.
struct KernelAction {
  void (*handler)(int);
  unsigned long flags;
  void (*restorer)();
  uint64_t mask;
};

#if defined(__x86_64__)
// Where the handler returns to. Debuggers and unwinders know a signal frame by these very
// instructions.
extern "C" [[gnu::naked]] void heapflare_signal_return() {
  asm volatile(
      "mov $15, %rax\n\t"  // rt_sigreturn
      "syscall");
}
constexpr unsigned long kRestorerFlag = 0x04000000;  // SA_RESTORER
#else
void heapflare_signal_return() {}
constexpr unsigned long kRestorerFlag = 0;
#endif

constexpr size_t kSetBytes = 8;

}  // namespace

void InstallSignalTrigger(int signal) {
  if (signal == 0) return;
  KernelAction current = {};
  const long error = base::Syscall(SYS_rt_sigaction, signal, 0, base::Arg(&current), kSetBytes);
  if (error != 0 || current.handler != SIG_DFL) {
    base::Text<256> line("HEAPFLARE_SIGNAL: the program uses signal ");
    line.AddNumber(static_cast<uint64_t>(signal)).Add(" itself; no dumps on it");
    base::Say(line.view());
    return;
  }
  const KernelAction action = {.handler = Handle,
                               .flags = SA_RESTART | SA_ONSTACK | kRestorerFlag,
                               .restorer = heapflare_signal_return,
                               .mask = 0};
  base::Syscall(SYS_rt_sigaction, signal, base::Arg(&action), 0, kSetBytes);
}

void PostSignalledDump() {
  if (!signalled.exchange(false, std::memory_order_acquire)) return;
  DumpRequest request;
  request.reason.Add("signal");
  // With all slots taken: at the next tick.
  if (!requests.Leave(request)) signalled.store(true, std::memory_order_relaxed);
}

}  // namespace heapflare::recorder
