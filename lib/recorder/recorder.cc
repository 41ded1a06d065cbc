#include "lib/recorder/recorder.h"

#include <errno.h>

#include <algorithm>
#include <cstring>

#include "lib/base/held_signals.h"
#include "lib/base/say.h"
#include "lib/base/syscall.h"
#include "lib/box/control.h"
#include "lib/box/totals.h"
#include "lib/recorder/bootstrap_arena.h"
#include "lib/recorder/brief_wait.h"
#include "lib/recorder/free_filter.h"
#include "lib/recorder/identity.h"
#include "lib/recorder/modules.h"
#include "lib/recorder/next_allocator.h"
#include "lib/recorder/own_frames.h"
#include "lib/recorder/own_process.h"
#include "lib/recorder/places.h"
#include "lib/recorder/requests.h"
#include "lib/recorder/signals_blocked.h"
#include "lib/recorder/stack_bounds.h"
#include "lib/recorder/thread.h"
#include "lib/recorder/thread_state.h"
#include "lib/recorder/version.h"

namespace heapflare::recorder {

constinit Recorder recorder = {};
thread_local constinit ThreadState thread_state = {};

namespace {

using box::Atomic;

constinit std::atomic<bool> prepared = false;

// Creates the control file beside the box, empty and ours.
void CreateControlFile() {
  recorder.control_path = recorder.box_path;
  recorder.control_path.ShortenTo(recorder.control_path.size() - strlen(".box"));
  recorder.control_path.Add(".ctl");
  base::Unlink(recorder.control_path.c_str());
  const int fd =
      base::Open(recorder.control_path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
  if (fd < 0) {
    recorder.control_path.Clear();
    return;
  }
  const base::HeldSignals held;
  held.Take(base::Truncate(fd, box::kAnswerOffset + sizeof(box::ControlAnswer)));
  base::Close(fd);
}

// What creating the box builds paths in. Static, since the first sample may fall on a stack of 16 KiB;
// whoever brought the phase to kOpening has them to itself.
constinit base::Path directory_buffer;
constinit base::Path path_buffer;

// Creates the box in the directory; 0 or negative errno.
int CreateIn(base::Path* directory) {
  const Identity& identity = recorder.identity;
  if (const int error = UseDirectory(directory->c_str()); error != 0) return error;
  // A process of this name and number that started in this very second can be our own image before
  // an exec, or a twin in another PID namespace that shares the directory. The one is replaced, the
  // other keeps its file.
  for (uint64_t twin = 0; twin < 16; ++twin) {
    base::Path& path = path_buffer;
    path.Clear();
    path.Add(directory->view()).Add('/');
    Stem(identity.program.view(), OwnProcessId(), identity.start_utc / 1'000'000'000 + twin, &path);
    path.Add(".box");
    if (path.truncated()) return -ENAMETOOLONG;
    const box::MappingOptions options = {.path = path.c_str(),
                                         .file_bytes = recorder.settings.box_bytes,
                                         .mode = recorder.settings.box_mode};
    int error = recorder.mapping.Create(options);
    if (error == -EEXIST) {
      box::Header other = {};
      const long bytes = base::ReadFile(path.c_str(), &other, sizeof(other));
      if (bytes != sizeof(other) || !WrittenBy(identity, other)) continue;
      base::Unlink(path.c_str());
      error = recorder.mapping.Create(options);
    }
    if (error == 0) recorder.box_path = path;
    return error;
  }
  return -EEXIST;
}

// Of a leak check: memory only, with room for every block. It costs what is touched.
bool CreateBooks() {
  constexpr uint64_t kBytes = uint64_t{2} << 30;
  const int error =
      recorder.mapping.Create({.path = nullptr,
                               .file_bytes = std::max(recorder.settings.box_bytes, kBytes),
                               .mode = 0600,
                               .unshared = true});
  if (error != 0) base::Say("no memory for the books of a leak check; not checking");
  return error == 0;
}

bool CreateBox() {
  recorder.box_path.Clear();
  recorder.control_path.Clear();
  if (recorder.settings.leak_check) return CreateBooks();
  base::Path& directory = directory_buffer;
  base::Text<1024> problems;
  for (int choice = 0; BoxDirectory(recorder.settings, choice, &directory); ++choice) {
    const int error = CreateIn(&directory);
    if (error == 0) {
      CreateControlFile();
      if (recorder.settings.box_directory.size() > 0 && choice > 0) {
        base::Say(problems.Add("the box is in ").Add(directory.view()).view());
      }
      return true;
    }
    problems.Add("cannot keep a box in ").Add(directory.view()).Add(" (errno ");
    problems.AddNumber(static_cast<uint64_t>(-error)).Add("); ");
  }
  const int error = recorder.mapping.Create(
      {.path = nullptr, .file_bytes = recorder.settings.box_bytes, .mode = 0600});
  if (error == 0) {
    problems.Add("the box has no name, so nothing survives this process");
  } else {
    problems.Add("and none in memory (errno ").AddNumber(static_cast<uint64_t>(-error));
    problems.Add("); not profiling");
  }
  base::Say(problems.view());
  return error == 0;
}

void RemoveFiles() {
  if (recorder.box_path.size() > 0) base::Unlink(recorder.box_path.c_str());
  if (recorder.control_path.size() > 0) base::Unlink(recorder.control_path.c_str());
}

// Everything between "a box is wanted" and "samples can be recorded".
bool OpenBox() {
  // Anew, since this may be a forked child.
  ReadIdentity(&recorder.identity);
  if (!CreateBox()) return false;
  box::Mapping& mapping = recorder.mapping;
  box::Header& header = mapping.header();
  header.magic = box::kMagic;
  FillIdentity(recorder.identity, &header);
  memcpy(header.recorder_version, kVersion,
         std::min(sizeof(kVersion), sizeof(header.recorder_version)));
  header.max_frames = recorder.settings.max_stack;
  header.configured_interval = recorder.settings.sample_interval;
  header.interval = recorder.interval.load(std::memory_order_relaxed);
  header.heartbeat_mono = header.opened_mono;
  header.heartbeat_utc = header.opened_utc;
  bool room = true;
  for (const box::RegionId ring : {box::kHistory, box::kRecent, box::kEvents}) {
    room = room && mapping.Reserve(ring, header.regions[ring].record_bytes);
  }
  if (!room || recorder.stacks.Attach(&mapping, FindModuleOf, CheckLocation) != 0 ||
      recorder.samples.Attach(&mapping) != 0) {
    base::Say("no room for a box; not profiling");
    recorder.stacks.Detach();
    recorder.samples.Detach();
    mapping.Forget();
    RemoveFiles();
    return false;
  }
  AttachModules(&mapping);
  recorder.thin_at.store(recorder.samples.capacity() / 2, std::memory_order_relaxed);
  header.losses.samples = recorder.unrecorded_samples.load(std::memory_order_relaxed);
  header.losses.sample_bytes = recorder.unrecorded_bytes.load(std::memory_order_relaxed);
  Atomic(header.state)
      .store(static_cast<uint32_t>(box::State::kRunning), std::memory_order_release);
  return true;
}

// Another thread is opening the box, which takes a fraction of a millisecond, more if it loses its
// processor. If it is this thread, below a signal handler, there is nothing to wait for;
// thread_state.entered_at tells, and callers ask it.
Phase WaitWhileOpening() {
  Phase phase = recorder.phase.load(std::memory_order_acquire);
  WaitBriefly(200'000'000, [&phase] {
    phase = recorder.phase.load(std::memory_order_acquire);
    return phase != Phase::kOpening;
  });
  // Who opens it is not coming back, or not soon: nobody waits a second time. If it does come back,
  // it goes on from there.
  if (phase == Phase::kOpening) recorder.phase.compare_exchange_strong(phase, Phase::kOff);
  return phase;
}

void SayProblem(std::string_view line) { base::Say(line); }

}  // namespace

void Prepare() {
  if (prepared.load(std::memory_order_acquire) || prepared.exchange(true)) return;
  FindOwnCode();
  RememberFirstThread();
  base::RememberStderr();
  FindNextAllocator();
  RememberFirstObjects(FindObjectList());
  ReadSettings(&recorder.settings, SayProblem);
  ReadIdentity(&recorder.identity);
  const std::string_view programs = recorder.settings.programs.view();
  if (!NamesProgram(programs, recorder.identity.program.view()) &&
      !NamesProgram(programs, recorder.identity.executable.view()) &&
      !NamesProgram(programs, recorder.identity.invoked.view())) {
    recorder.phase.store(Phase::kOff, std::memory_order_release);
    return;
  }
  MarkOwnProcess();
  free_filter.Prepare(recorder.settings.box_bytes, AddUsedArena);
  recorder.interval.store(recorder.settings.sample_interval, std::memory_order_relaxed);
  recorder.phase.store(Phase::kWaiting, std::memory_order_release);
}

namespace {

// Has the recorder's thread open the box, and leaves it some time for that. It is better placed: it
// cannot be cancelled or jumped out of, has stack enough, and what it opens takes no descriptor from
// the service.
void AskForBox() {
  if (ThreadOfRecorder() == 0) return;
  recorder.box_wanted.store(true, std::memory_order_release);
  Ring();
  WaitBriefly(100'000'000,
              [] { return recorder.phase.load(std::memory_order_acquire) != Phase::kWaiting; });
}

}  // namespace

bool Ready() {
  const Phase phase = recorder.phase.load(std::memory_order_acquire);
  if (phase == Phase::kRecording) return true;
  if (!IsOwnProcessId()) return false;
  // A child that was just forked mostly has one thread, does little and ends: it is quicker by itself.
  if (phase == Phase::kWaiting && recorder.forked_by != __builtin_thread_pointer()) AskForBox();
  return ReadyHere();
}

bool ReadyHere() {
  Phase phase = recorder.phase.load(std::memory_order_acquire);
  if (phase == Phase::kRecording) return true;
  if (phase == Phase::kWaiting && recorder.phase.compare_exchange_strong(phase, Phase::kOpening)) {
    const SignalsBlocked blocked;
    const bool open = OpenBox();
    recorder.phase.store(open ? Phase::kRecording : Phase::kOff, std::memory_order_release);
    // A service that allocates so early may be at its limit before the thread would begin to watch.
    if (open) Ring();
    return open;
  }
  return WaitWhileOpening() == Phase::kRecording;
}

void NoteUnrecorded(uint64_t bytes, uint64_t weight) {
  if (weight == 0) return;
  recorder.unrecorded_samples.fetch_add(1, std::memory_order_relaxed);
  recorder.unrecorded_bytes.fetch_add(box::WeightedBytes(bytes, weight), std::memory_order_relaxed);
}

namespace {

void StartOver(Phase next) {
  DetachModules();
  recorder.stacks.Detach();
  recorder.samples.Detach();
  recorder.mapping.Forget();
  recorder.box_path.Clear();
  recorder.control_path.Clear();
  recorder.box_wanted.store(false, std::memory_order_relaxed);
  recorder.forked_by = __builtin_thread_pointer();
  recorder.box_number.fetch_add(1, std::memory_order_relaxed);
  recorder.unrecorded_samples.store(0, std::memory_order_relaxed);
  recorder.unrecorded_bytes.store(0, std::memory_order_relaxed);
  free_filter.Clear();
  AddUsedArena(&free_filter);
  thread_state.sampler.Reset();
  thread_state.clock_bytes = 0;
  recorder.interval.store(recorder.settings.sample_interval, std::memory_order_relaxed);
  MarkOwnProcess();
  recorder.phase.store(next, std::memory_order_release);
}

// What the thread that forked was in the middle of, below a signal handler, goes on as in the parent.
// What other threads were at is lost: a block that was about to be booked is unknown.
void KeepBooksInChild() {
  KeepModulesInChild();
  recorder.parent = OwnProcessId();
  recorder.forked_by = __builtin_thread_pointer();
  ++recorder.generation;
  MarkOwnProcess();
  ReadIdentity(&recorder.identity);
  FillIdentity(recorder.identity, &recorder.mapping.header());
}

}  // namespace

void StartOverInChild() {
  const Phase phase = recorder.phase.load(std::memory_order_relaxed);
  if (phase == Phase::kOff) return;
  if (recorder.settings.leak_check && phase == Phase::kRecording) {
    KeepBooksInChild();
    return;
  }
  if (thread_state.entered_at == 0) {
    StartOver(phase == Phase::kClosed ? Phase::kClosed : Phase::kWaiting);
  } else if (phase != Phase::kClosed && phase != Phase::kInterrupted) {
    recorder.mapping.GoPrivate();
    thread_state.start_over = true;
    recorder.phase.store(Phase::kInterrupted, std::memory_order_release);
  }
}

void FinishStartOver() {
  thread_state.start_over = false;
  StartOver(Phase::kWaiting);
}

void Close() {
  if (!IsOwnProcessId()) return;
  // Again if the opening begins at this very moment.
  Phase phase = Phase::kOpening;
  do {
    phase = WaitWhileOpening();
    if (phase != Phase::kWaiting && phase != Phase::kRecording) return;
  } while (!recorder.phase.compare_exchange_strong(phase, Phase::kClosed));
  if (phase != Phase::kRecording) return;
  // The mapping stays: other threads may be in the middle of a sample.
  Atomic(recorder.mapping.header().state)
      .store(static_cast<uint32_t>(box::State::kClosed), std::memory_order_release);
  RemoveFiles();
}

void SetInterval(uint64_t bytes) {
  const uint64_t before = recorder.interval.exchange(bytes, std::memory_order_relaxed);
  box::Header* header = Header();
  if (header == nullptr || before == bytes) return;
  Atomic(header->interval).store(bytes, std::memory_order_relaxed);
  NoteEvent(box::EventKind::kIntervalChanged, before, bytes, 0);
}

void Thin() {
  // A leak check without all blocks is none; what finds no room is counted as lost.
  if (recorder.settings.leak_check) return;
  uint64_t at = recorder.thin_at.load(std::memory_order_relaxed);
  const uint64_t live = recorder.samples.live();
  const uint64_t capacity = recorder.samples.capacity();
  // Next when half of what is left is used up: the rate halves as often as the room does.
  if (live < at || at >= capacity ||
      !recorder.thin_at.compare_exchange_strong(at, at + (capacity - at + 1) / 2)) {
    return;
  }
  box::Header& header = recorder.mapping.header();
  const uint64_t before = recorder.interval.load(std::memory_order_relaxed);
  if (before == 0) return;
  // An interval far below the blocks' size samples every one of them, doubled or not: so it also
  // becomes twice the mean size of the live blocks.
  const uint64_t live_bytes = box::WholeBytes(box::SumTallies(header).live_bytes());
  const uint64_t after = std::max(before * 2, before == 1 && live > 0 ? live_bytes / live * 2 : 0);
  recorder.interval.store(after, std::memory_order_relaxed);
  Atomic(header.interval).store(after, std::memory_order_relaxed);
  Atomic(header.losses.thinnings).fetch_add(1, std::memory_order_relaxed);
  NoteEvent(box::EventKind::kThinned, before, after, live);
}

void NoteEvent(box::EventKind kind, uint64_t a, uint64_t b, uint64_t c, std::string_view text,
               uint64_t usage) {
  box::Header* header = Header();
  if (header == nullptr) return;
  box::Region& region = header->regions[box::kEvents];
  const uint64_t number = Atomic(region.used).fetch_add(1, std::memory_order_relaxed);
  const uint64_t slot = number % region.capacity;
  if (!recorder.mapping.Reserve(box::kEvents, (slot + 1) * region.record_bytes)) return;
  box::Event event = {.sequence = 0,
                      .time_mono = static_cast<uint64_t>(base::MonotonicNanoseconds()),
                      .kind = static_cast<uint32_t>(kind),
                      .unused = 0,
                      .a = a,
                      .b = b,
                      .c = c,
                      .usage = usage,
                      .text = {}};
  memcpy(event.text, text.data(), std::min(text.size(), sizeof(event.text)));
  box::PublishInRing(event, number, recorder.mapping.Records<box::Event>(box::kEvents) + slot);
}

}  // namespace heapflare::recorder
