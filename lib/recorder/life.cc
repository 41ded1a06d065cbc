// The recorder's life in the process: constructor, fork, exit, and what its thread does all day.
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cstring>

#include "lib/base/say.h"
#include "lib/base/syscall.h"
#include "lib/recorder/control_server.h"
#include "lib/recorder/credentials.h"
#include "lib/recorder/dump.h"
#include "lib/recorder/growth.h"
#include "lib/recorder/leak_check.h"
#include "lib/recorder/leak_memory.h"
#include "lib/recorder/modules.h"
#include "lib/recorder/next_allocator.h"
#include "lib/recorder/own_process.h"
#include "lib/recorder/reach.h"
#include "lib/recorder/recorder.h"
#include "lib/recorder/requests.h"
#include "lib/recorder/signal_trigger.h"
#include "lib/recorder/thread.h"
#include "lib/recorder/tidy.h"
#include "lib/recorder/watch.h"

namespace heapflare::recorder {
namespace {

constexpr int64_t kMillisecond = 1'000'000;
constexpr int64_t kSecond = 1'000'000'000;
// A process that ends before never sees a box made by the thread (only by its own samples).
constexpr int64_t kFirstSleep = 20 * kMillisecond;
constexpr int64_t kSlowPeriod = 2 * kSecond;
// A server whose workers come and go must not fill the directory with what they leave.
constexpr int64_t kTidyPeriod = 10 * kSecond;

constinit std::atomic<bool> has_children = false;

void AnnounceStart() {
  if (!recorder.settings.verbose) return;
  base::Text<1024> line("profiling ");
  line.Add(recorder.identity.program.view()).Add(" (pid ");
  line.AddNumber(static_cast<uint64_t>(OwnProcessId())).Add("), ");
  DescribeWatch(&line);
  line.Add(", box ");
  line.Add(recorder.box_path.size() > 0 ? recorder.box_path.view() : "without a name");
  base::Say(line.view());
}

// A process lives as long as one of its threads: ours may not be the one.
void EndWithService() {
  int exit_code = 0;
  if (ServiceHasEnded(&exit_code)) base::Syscall(SYS_exit, exit_code);
}

void FollowUser() {
  OpenControlFile();
  uint32_t user = 0;
  if (FollowCredentials(&user)) NoteEvent(box::EventKind::kCredentials, user, 0, 0);
}

// Runs on the recorder's own thread until the process ends: see thread.h for what it may not do.
void Work() {
  SleepUntilRung(0);
  if (!recorder.box_wanted.load(std::memory_order_acquire)) SleepUntilRung(kFirstSleep);
  FollowUser();
  while (recorder.phase.load(std::memory_order_acquire) == Phase::kInterrupted) {
    SleepUntilRung(kSecond);
  }
  if (!ReadyHere()) return;
  StartWatching();
  LookAtMemory();
  AnnounceStart();
  RemoveBoxesOfTheDead();
  TouchDumpBuffers();
  int64_t next_slow_look = 0;
  int64_t next_tidying = base::MonotonicNanoseconds() + kTidyPeriod;
  while (recorder.phase.load(std::memory_order_acquire) == Phase::kRecording) {
    const int64_t now = base::MonotonicNanoseconds();
    if (now >= next_slow_look) {
      EndWithService();
      FollowUser();
      FollowCgroup();
      ScanModules();
      next_slow_look = now + kSlowPeriod;
    }
    if (now >= next_tidying && has_children.load(std::memory_order_relaxed)) {
      RemoveBoxesOfTheDead();
      next_tidying = now + kTidyPeriod;
    }
    // Before the clock of the samples moves on in LookAtMemory: see growth.h.
    LookAtGrowth();
    int64_t pause = LookAtMemory();
    PostSignalledDump();
    ServeControlFile();
    pause = std::min(pause, ReachPause());
    if (!requests.Serve()) SleepUntilRung(pause);
  }
  // Somebody may still wait for the exit's dump.
  requests.Serve();
}

bool StartOwnThread() { return !recorder.settings.under_valgrind && StartThread(Work); }

void Parent() { has_children.store(true, std::memory_order_relaxed); }

void Child() {
  has_children.store(false, std::memory_order_relaxed);
  requests.Clear();
  ForgetThread();
  ForgetWatch();
  ForgetGrowth();
  ForgetDumps();
  ForgetReach();
  StartOverInChild();
  const Phase phase = recorder.phase.load(std::memory_order_relaxed);
  const bool goes_on = recorder.settings.leak_check && phase == Phase::kRecording;
  if (phase == Phase::kWaiting || phase == Phase::kInterrupted || goes_on) StartOwnThread();
}

void SayWhoComesFirst(const char* library) {
  if (*library == '\0') {
    base::Say(
        "this program has a malloc of its own, which preloading cannot reach; link it with "
        "heapflare::wrap (see: heapflare doctor)");
    return;
  }
  base::Text<1024> line("malloc is that of ");
  line.Add(library).Add("; not profiling, name libheapflare.so first in LD_PRELOAD");
  base::Say(line.view());
}

[[gnu::constructor(101)]] void Start() {
  Prepare();
  RememberFirstThreadPointer();
  RemovePredecessor();
  if (recorder.phase.load(std::memory_order_acquire) == Phase::kOff) return;
  if (const char* const other = OtherMalloc(); other != nullptr) {
    SayWhoComesFirst(other);
    recorder.phase.store(Phase::kOff, std::memory_order_release);
    return;
  }
  // Not earlier: a static program's libc allocates while it sets that lookup up, and a lookup from
  // within crashes.
  UseObjectLookup(FindObjectLookup());
  pthread_atfork(nullptr, Parent, Child);
  InstallSignalTrigger(recorder.settings.signal);
  if (!StartOwnThread()) base::Say("cannot start a thread; no dumps, but the box is kept");
}

[[gnu::destructor(101)]] void Finish() {
  if (recorder.phase.load(std::memory_order_acquire) == Phase::kOff || !IsOwnProcessId()) return;
  if (recorder.settings.dump_at_exit && ThreadOfRecorder() != 0 && Ready()) {
    DumpRequest request;
    request.reason.Add("exit");
    const int slot = requests.Post(request);
    if (slot >= 0) requests.Wait(slot, 10 * kSecond, nullptr);
  }
  if (recorder.settings.leak_check && !recorder.settings.under_valgrind) {
    // Closes when it is done.
    RegisterLeakCheck();
    return;
  }
  Close();
}

}  // namespace
}  // namespace heapflare::recorder
