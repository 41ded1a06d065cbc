#include "lib/recorder/reach.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <new>

#include "lib/base/clone.h"
#include "lib/base/parse.h"
#include "lib/base/syscall.h"
#include "lib/box/control.h"
#include "lib/reach/block_index.h"
#include "lib/reach/kernel_pointers.h"
#include "lib/reach/scan.h"
#include "lib/reach/stopped_threads.h"
#include "lib/recorder/memory_clock.h"
#include "lib/recorder/own_process.h"
#include "lib/recorder/own_ranges.h"
#include "lib/recorder/recorder.h"
#include "lib/recorder/thread.h"
#include "lib/recorder/watch.h"

namespace heapflare::recorder {
namespace {

using box::ReachError;
using box::ReachMode;
using reach::Verdict;

constexpr uint64_t kMiB = 1 << 20;
constexpr int64_t kMillisecond = 1'000'000;
constexpr int64_t kSecond = 1'000'000'000;

// A younger block may be on its way from the allocator to where it will be kept. It also tells a
// sample from a later one at the same address: see SampleTable::Mark.
constexpr uint32_t kYoungestTenths = 10;
// Left free besides what the pass may cost.
constexpr uint64_t kMargin = 16 * kMiB;
// For all threads to stop, and for stopping, copying and letting go together: a copy of 100 GiB in
// small pages takes two seconds.
constexpr int64_t kStopBudget = 2 * kMillisecond;
constexpr int64_t kStopDeadline = 10 * kSecond;
constexpr int64_t kScanDeadline = 600 * kSecond;
constexpr uint64_t kScanSeconds = 300;  // of processor time
constexpr uint64_t kMostWords = 16 << 10;

// Which sample a block is.
struct Candidate {
  uint32_t slot;
  uint32_t born_tenths;
};

// What the copy and the collector report, in memory that all share.
struct Report {
  reach::ScanResult scan;
  std::atomic<int> copy;        // its process, or negative errno
  std::atomic<uint32_t> probe;  // 1: ptrace may be tried, 2: it may not
  int64_t fork_ns;
};

// One pass. In memory of its own: the copy gives back what it has searched, static memory too, and
// uses nothing but this afterwards.
struct Pass {
  bool live = false;      // memory is searched as it is
  bool stopping = false;  // the collector is at work
  bool may_probe = false;
  uint32_t flags = 0;  // ReachFlags
  int process = 0;     // the service
  int copy = 0;        // a process, 0: none
  int64_t started = 0;
  int64_t next_check = 0;
  int64_t deadline = 0;
  uint64_t extra_bytes = 0;
  std::byte* memory = nullptr;  // words, candidates, workspace of the scan
  uint64_t memory_bytes = 0;
  std::byte* shared = nullptr;  // Report, verdicts
  uint64_t shared_bytes = 0;
  Candidate* candidates = nullptr;
  uint64_t* words = nullptr;
  uint64_t word_count = 0;
  Report* report = nullptr;
  reach::BlockIndex blocks;
  reach::Collector collector;
  reach::Collector searcher;  // of memory as it is
  reach::ScanOptions scan;
  reach::ScanOptions::Own own[reach::kMostOwn] = {};
  uint32_t own_count = 0;
  ReachError error = ReachError::kNone;
  int system_error = 0;
  reach::StopResult stop = {};
};

constinit Pass* pass = nullptr;
// What a copy has found out about a seccomp filter.
constinit reach::PtraceStanding known_standing = reach::PtraceStanding::kUnknown;

long Wait4(int process, int* status, int options) {
  return base::Syscall(SYS_wait4, process, base::Arg(status), options, 0);
}

void* MapZeroed(uint64_t bytes, int kind) {
  return base::Map(nullptr, bytes, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS | MAP_NORESERVE);
}

void Own(uint64_t start, uint64_t bytes) {
  if (pass->own_count < reach::kMostOwn) pass->own[pass->own_count++] = {start, bytes};
}

bool MakePass() {
  void* const memory = MapZeroed(sizeof(Pass), MAP_PRIVATE);
  if (memory == nullptr) return false;
  pass = ::new (memory) Pass();
  return true;
}

void Release() {
  // Who cannot be ended keeps what it uses.
  if (!pass->collector.running() && !pass->searcher.running()) {
    if (pass->memory != nullptr) base::Unmap(pass->memory, pass->memory_bytes);
    if (pass->shared != nullptr) base::Unmap(pass->shared, pass->shared_bytes);
    pass->~Pass();
    base::Unmap(pass, sizeof(Pass));
  }
  pass = nullptr;
}

bool Fail(ReachError error, int system_error = 0) {
  pass->error = error;
  pass->system_error = system_error;
  return false;
}

uint64_t MachineAvailable() {
  char text[1024];
  const long bytes = base::ReadFile("/proc/meminfo", text, sizeof(text));
  std::string_view rest(text, bytes > 0 ? static_cast<size_t>(bytes) : 0);
  for (std::string_view line; base::TakeUntil('\n', &rest, &line);) {
    std::string_view name;
    base::TakeUntil(':', &line, &name);
    if (name != "MemAvailable") continue;
    line = base::TrimSpace(line);
    std::string_view number;
    base::TakeUntil(' ', &line, &number);
    const auto kilobytes = base::ParseNumber(number);
    if (kilobytes) return *kilobytes * 1024;
  }
  return box::kUnknown;
}

// Live samples that are old enough, into the index and pass->candidates.
bool ListSamples() {
  const uint64_t slots = recorder.samples.slots_in_use();
  const uint64_t room = recorder.samples.live() + 1024;
  const uint64_t capacity = std::min(slots, room);
  if (const int error = pass->blocks.Reserve(capacity); error != 0) {
    return Fail(ReachError::kSystem, -error);
  }
  const uint64_t workspace = reach::ScanWorkspaceBytes(capacity);
  pass->memory_bytes = workspace + kMostWords * sizeof(uint64_t) + capacity * sizeof(Candidate);
  pass->shared_bytes = sizeof(Report) + capacity;
  pass->memory = static_cast<std::byte*>(MapZeroed(pass->memory_bytes, MAP_PRIVATE));
  pass->shared = static_cast<std::byte*>(MapZeroed(pass->shared_bytes, MAP_SHARED));
  if (pass->memory == nullptr || pass->shared == nullptr) {
    return Fail(ReachError::kSystem, ENOMEM);
  }
  pass->words = reinterpret_cast<uint64_t*>(pass->memory);
  pass->candidates = reinterpret_cast<Candidate*>(pass->words + kMostWords);
  pass->scan.workspace = pass->candidates + capacity;
  pass->report = reinterpret_cast<Report*>(pass->shared);
  pass->scan.verdicts = reinterpret_cast<Verdict*>(pass->shared + sizeof(Report));

  const box::Sample* const records = recorder.mapping.Records<box::Sample>(box::kSamples);
  const uint64_t now = CoarseNow() - recorder.mapping.header().opened_mono;
  const auto age = static_cast<uint32_t>(now / (kSecond / 10));
  uint32_t count = 0;
  for (uint64_t slot = 0; slot < slots && count < capacity; ++slot) {
    const uint64_t address = box::Load(records[slot].address, std::memory_order_acquire);
    if (address <= box::kSampleClaimed) continue;
    box::Sample sample = {};
    box::LoadShared(&records[slot], &sample);
    if (sample.address != address ||
        box::Load(records[slot].address, std::memory_order_relaxed) != address ||
        sample.born_tenths + kYoungestTenths > age) {
      continue;
    }
    if (!pass->blocks.Add(address, box::SizeOf(sample), count)) break;
    pass->candidates[count++] = {static_cast<uint32_t>(slot), sample.born_tenths};
  }
  pass->blocks.Build();
  return true;
}

// Decides between a copy, memory as it is, and nothing.
bool CheckHeadroom() {
  const uint64_t own = pass->memory_bytes / 4 + pass->blocks.memory_bytes();
  const uint64_t headroom = std::min(Headroom(), MachineAvailable());
  const uint64_t for_copy = box::kReachMostExtraBytes + reach::PageTableBytes() + own + kMargin;
  if (headroom < own + kMargin) return Fail(ReachError::kHeadroom);
  pass->live = headroom < for_copy || (pass->flags & box::kReachWithoutFork) != 0;
  return true;
}

void AddWord(void* /*context*/, uint64_t word) {
  if (pass->word_count < kMostWords) pass->words[pass->word_count++] = word;
}

void RunAtIdlePriority() {
  constexpr long kIdle = 5;  // SCHED_IDLE
  const int no_priority = 0;
  base::Syscall(SYS_sched_setscheduler, 0, kIdle, base::Arg(&no_priority));
  base::Syscall(SYS_setpriority, PRIO_PROCESS, 0, 19);
}

void Limit(int resource, uint64_t most) {
  const uint64_t limit[2] = {most, most};
  base::Syscall(SYS_prlimit64, 0, resource, base::Arg(limit), 0);
}

// The copy: a process of its own, with nobody to call for help.
[[noreturn]] void RunCopy(const Pass& self) {
  constexpr long kCloseRange = 436;  // close_range(2), kernel 5.9
  base::Syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL);
  if (base::Syscall(SYS_getppid) != self.process) base::Syscall(SYS_exit, 1);
  base::Syscall(SYS_prctl, PR_SET_NAME, base::Arg("heapflare-scan"));
  base::Syscall(kCloseRange, 0, ~0U, 0);
  RunAtIdlePriority();
  Limit(RLIMIT_CPU, kScanSeconds);
  // The image of somebody's heap belongs into no file.
  Limit(RLIMIT_CORE, 0);
  const int fd = base::Open("/proc/self/oom_score_adj", O_WRONLY);
  if (fd >= 0) {
    base::Write(fd, "1000", 4);
    base::Close(fd);
  }
  reach::Scan(self.scan);
  // A filter that kills, kills this process only, whose work is done.
  if (self.may_probe) {
    self.report->probe.store(2, std::memory_order_release);
    self.report->probe.store(reach::ProbePtrace() ? 1 : 2, std::memory_order_release);
  }
  for (;;) base::Syscall(SYS_exit, 0);
}

// In the collector, while all stand.
void MakeCopy(void* context, const reach::StoppedThreads& threads) {
  Pass& self = *static_cast<Pass*>(context);
  self.scan.threads = threads;
  if (self.live) return;
  const int64_t before = base::MonotonicNanoseconds();
  // A child of the service, not of the collector, which ends; and like that one it sends no signal.
  const long copy = base::ForkWithoutLibc(CLONE_PARENT);
  if (copy == 0) RunCopy(self);
  self.report->fork_ns = base::MonotonicNanoseconds() - before;
  self.report->copy.store(static_cast<int>(copy), std::memory_order_release);
}

// In the searcher. The registers are in the collector's memory still.
void SearchLive(void* context, const reach::StoppedThreads& /*threads*/) {
  const Pass& self = *static_cast<Pass*>(context);
  RunAtIdlePriority();
  reach::Scan(self.scan);
}

bool StartCollector() {
  Own(reinterpret_cast<uint64_t>(pass), sizeof(Pass));
  Own(reinterpret_cast<uint64_t>(pass->memory), pass->memory_bytes);
  Own(reinterpret_cast<uint64_t>(pass->shared), pass->shared_bytes);
  Own(pass->blocks.memory_start(), pass->blocks.memory_bytes());
  VisitOwnRanges([](void* /*context*/, uint64_t start, uint64_t bytes) { Own(start, bytes); },
                 nullptr);
  reach::VisitSystemCalls(OwnProcessId(), AddWord, nullptr);

  const auto standing = reach::MayTryPtrace();
  if (standing == reach::PtraceStanding::kFree) known_standing = standing;
  pass->may_probe = known_standing == reach::PtraceStanding::kUnknown;
  reach::StopOptions options;
  options.process = OwnProcessId();
  options.spared_thread = ThreadOfRecorder();
  options.stop_budget_ns = kStopBudget;
  options.without_stopping = known_standing != reach::PtraceStanding::kFree ||
                             (pass->flags & box::kReachWithoutStopping) != 0;
  options.while_stopped = MakeCopy;
  options.context = pass;
  // Its memory is only there once it is started, and the copy is made by it.
  const int error = pass->collector.Prepare(options);
  if (error != 0) return Fail(ReachError::kSystem, -error);
  Own(pass->collector.memory_start(), pass->collector.memory_bytes());
  pass->scan.blocks = &pass->blocks;
  pass->scan.words = pass->words;
  pass->scan.word_count = pass->word_count;
  pass->scan.process = pass->process;
  pass->scan.spared_thread = options.spared_thread;
  pass->scan.copy = !pass->live;
  pass->scan.own = pass->own;
  pass->scan.own_count = pass->own_count;
  pass->scan.result = &pass->report->scan;
  if (const int failed = pass->collector.Start(); failed != 0) {
    return Fail(ReachError::kSystem, -failed);
  }
  pass->stopping = true;
  pass->deadline = base::MonotonicNanoseconds() + kStopDeadline;
  return true;
}

bool StartSearcher() {
  const int error = pass->searcher.Prepare({.process = pass->process,
                                            .without_stopping = true,
                                            .while_stopped = SearchLive,
                                            .context = pass});
  if (error != 0) return Fail(ReachError::kSystem, -error);
  Own(pass->searcher.memory_start(), pass->searcher.memory_bytes());
  pass->scan.own_count = pass->own_count;
  const int failed = pass->searcher.Start();
  return failed == 0 || Fail(ReachError::kSystem, -failed);
}

ReachMode ModeOfPass() {
  const bool stopped = pass->stop.threads > 0;
  if (pass->live) return stopped ? ReachMode::kStoppedLive : ReachMode::kLive;
  return stopped ? ReachMode::kStoppedFork : ReachMode::kFork;
}

// Brings the verdicts to the samples, as far as they are still there.
void MarkSamples(uint32_t needed, box::Reach* found) {
  for (uint32_t i = 0; i < pass->blocks.count(); ++i) {
    const reach::Block& block = pass->blocks.block(i);
    const Candidate& candidate = pass->candidates[block.id];
    const Verdict verdict = pass->scan.verdicts[i];
    ++found->objects;
    if (verdict != Verdict::kReachable) ++found->unreachable;
    if (verdict == Verdict::kIndirect) ++found->indirect;
    const uint32_t passes = recorder.samples.Mark(
        candidate.slot, block.address, candidate.born_tenths, verdict != Verdict::kReachable,
        verdict == Verdict::kIndirect, needed);
    if (passes >= needed) ++found->called;
  }
}

bool Reap(bool wait) {
  if (pass->copy == 0) return true;
  int status = 0;
  const long got = Wait4(pass->copy, &status, __WCLONE | (wait ? 0 : WNOHANG));
  if (got == 0 || got == -EINTR) return false;
  pass->copy = 0;
  if (got > 0 && WIFSIGNALED(status) && pass->error == ReachError::kNone) {
    pass->system_error = WTERMSIG(status);
  }
  return true;
}

void KillCopy() {
  if (pass->copy == 0) return;
  base::Syscall(SYS_kill, pass->copy, SIGKILL);
  // It may take its time, but nothing holds it.
  for (int i = 0; i < 1000 && !Reap(false); ++i) {
    constexpr timespec kNap = {0, kMillisecond};
    base::Syscall(SYS_nanosleep, base::Arg(&kNap));
  }
}

// The copy's cost, now and then: memory that only it holds any more.
void CheckExtra(int64_t now) {
  if (now < pass->next_check || pass->copy == 0) return;
  pass->next_check = now + kSecond / 4;
  pass->extra_bytes = std::max(pass->extra_bytes, reach::PrivateBytes(pass->copy));
  if (pass->extra_bytes > box::kReachMostExtraBytes + reach::PageTableBytes()) {
    Fail(ReachError::kExtraMemory);
    KillCopy();
  }
}

void DescribeFailure(base::TextWriter* text) {
  switch (pass->error) {
    case ReachError::kNone:
      return;
    case ReachError::kNoBox:
      text->Add("no samples are taken");
      return;
    case ReachError::kHeadroom:
      text->Add("too little memory is left below the limit: ");
      text->AddSize(std::min(Headroom(), MachineAvailable()));
      return;
    case ReachError::kExtraMemory:
      text->Add("the copy cost more than ").AddSize(box::kReachMostExtraBytes);
      text->Add(", since the service changes its memory faster than it can be searched");
      return;
    case ReachError::kDeadline:
      text->Add("it took too long");
      return;
    case ReachError::kSystem:
      text->Add("the kernel refused it (errno ");
      text->AddNumber(static_cast<uint64_t>(pass->system_error)).Add(')');
      return;
    case ReachError::kDied:
      text->Add("the copy was killed (signal ");
      text->AddNumber(static_cast<uint64_t>(pass->system_error)).Add(')');
      return;
    case ReachError::kUnreadable:
      text->Add("the process's mappings cannot be listed (errno ");
      text->AddNumber(static_cast<uint64_t>(pass->system_error)).Add(')');
      return;
  }
}

void Finish(base::TextWriter* text) {
  box::Header* const header = Header();
  if (header != nullptr) {
    box::Reach found = header->reach;
    const uint32_t needed = found.passes_needed;
    const bool ended = pass->error == ReachError::kNone;
    found = {.passes = found.passes + (ended ? 1 : 0),
             .passes_needed = needed,
             .failed = found.failed + (ended ? 0 : 1),
             .mode = static_cast<uint32_t>(ModeOfPass()),
             .error = static_cast<uint32_t>(pass->error),
             .system_error = pass->system_error,
             .threads = pass->stop.threads,
             .threads_unseen = pass->stop.threads_unseen,
             .start_mono = static_cast<uint64_t>(pass->started),
             .pause_ns = static_cast<uint64_t>(pass->stop.released_ns - pass->stop.stopped_ns),
             .fork_ns = 0,
             .scan_ns = 0,
             .bytes_scanned = 0,
             .bytes_unread = 0,
             .extra_bytes = pass->extra_bytes,
             .objects = 0,
             .unreachable = 0,
             .indirect = 0,
             .called = 0,
             .kernel_unseen = 0,
             .unused = 0};
    if (pass->report != nullptr) {
      found.fork_ns = static_cast<uint64_t>(pass->report->fork_ns);
      found.scan_ns = pass->report->scan.nanoseconds;
      found.bytes_scanned = pass->report->scan.bytes_scanned;
      found.bytes_unread = pass->report->scan.bytes_unread;
      found.kernel_unseen = pass->report->scan.kernel_seen ? 0 : 1;
    }
    if (ended) MarkSamples(needed, &found);
    header->reach = found;
    NoteEvent(box::EventKind::kReach, uint64_t{found.mode} << 32 | found.error, found.pause_ns,
              found.unreachable);
  }
  DescribeFailure(text);
  Release();
}

// The collector has ended, or its time is up. False: not yet.
bool AwaitCollector(int64_t now) {
  if (!pass->collector.Wait(0)) {
    if (now < pass->deadline) return false;
    Fail(ReachError::kDeadline);
    pass->collector.Kill();
  }
  pass->stopping = false;
  pass->stop = pass->collector.result();
  const int copy = pass->report->copy.load(std::memory_order_acquire);
  if (copy > 0) pass->copy = copy;
  if (pass->error != ReachError::kNone) {
    KillCopy();
  } else if (copy < 0) {
    Fail(ReachError::kSystem, -copy);
  } else if (!pass->collector.finished()) {
    Fail(ReachError::kDied, SIGKILL);
    KillCopy();
  } else if (pass->live) {
    StartSearcher();
  }
  pass->deadline = now + kScanDeadline;
  pass->next_check = now;
  return true;
}

bool AwaitCopy(int64_t now) {
  CheckExtra(now);
  if (pass->error == ReachError::kNone && now >= pass->deadline) {
    Fail(ReachError::kDeadline);
    KillCopy();
    pass->searcher.Kill();
  }
  return pass->searcher.Wait(0) && Reap(false);
}

}  // namespace

bool StartReach(uint32_t passes_needed, uint32_t flags) {
  if (pass != nullptr || !MakePass()) return false;
  pass->flags = flags;
  pass->process = OwnProcessId();
  pass->started = base::MonotonicNanoseconds();
  box::Header* const header = Header();
  if (header == nullptr) {
    Fail(ReachError::kNoBox);
    return true;
  }
  header->reach.passes_needed = passes_needed;
  // What is refused is told by AdvanceReach.
  static_cast<void>(ListSamples() && CheckHeadroom() && StartCollector());
  return true;
}

bool ReachActive() { return pass != nullptr; }

int64_t ReachPause() {
  if (pass == nullptr) return kSecond;
  return pass->stopping ? kMillisecond : 20 * kMillisecond;
}

bool AdvanceReach(base::TextWriter* text) {
  if (pass == nullptr) return false;
  const int64_t now = base::MonotonicNanoseconds();
  if (pass->stopping && !AwaitCollector(now)) return false;
  if (!AwaitCopy(now)) return false;
  const bool scanned =
      pass->report != nullptr && pass->report->scan.done.load(std::memory_order_acquire) != 0;
  if (pass->report != nullptr && known_standing == reach::PtraceStanding::kUnknown) {
    const uint32_t probe = pass->report->probe.load(std::memory_order_acquire);
    if (probe == 1) known_standing = reach::PtraceStanding::kFree;
    if (probe == 2) known_standing = reach::PtraceStanding::kForbidden;
  }
  if (pass->error == ReachError::kNone && !scanned) {
    pass->error = ReachError::kDied;
  } else if (pass->error == ReachError::kNone && pass->report->scan.error != 0) {
    Fail(ReachError::kUnreadable, -pass->report->scan.error);
  } else if (scanned && pass->error == ReachError::kNone) {
    // Of a probe after the work was done.
    pass->system_error = 0;
  }
  Finish(text);
  return true;
}

void ForgetReach() {
  if (pass == nullptr) return;
  // Its processes are not this one's; its memory is a copy.
  pass->collector.Forget();
  pass->searcher.Forget();
  Release();
}

}  // namespace heapflare::recorder
