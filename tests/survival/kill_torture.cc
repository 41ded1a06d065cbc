// Interrupts the recorder's slow paths at every instruction, by a signal whose handler uses them.
//
//   kill_torture --victim=FILE --plugin=FILE --library=FILE [--long] [--only=SCENARIO]
//
// Two ways. "Throughout": one execution is interrupted at each of its instructions in turn by a
// handler that allocates and frees. "Once": each of many executions is interrupted at one, the next
// one at the next; by a handler that allocates, that forks (the child goes on from the middle of the
// operation, allocates, and is killed: its box must read, and so must its parent's), or that jumps
// out of the operation and never comes back.
//
// After each execution nothing is under way, so the box must agree with itself and with the books of
// handler and operation. Nothing may crash or hang.
//
// Signals come where the next allocator is not at work: a handler that allocates there would break
// the allocator, with or without heapflare. Exit status: 0, 1 for a fault, 77 where ptrace is not
// allowed. x86_64.
#include <signal.h>

#include <cstdio>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_format.h"
#include "kill_scene.h"

namespace heapflare::test {
namespace {

namespace fs = std::filesystem;
using kill_test::Handler;
using Stop = Tracee::Stop;

struct Figures {
  uint64_t signals = 0;
  uint64_t executions = 0;
  uint64_t instructions = 0;
  uint64_t children = 0;
  uint64_t blocked = 0;  // instructions at which the recorder keeps signals out
};

// What was booked, by the box or by the program itself. Objects and bytes.
struct Account {
  uint64_t allocated_objects = 0;
  uint64_t allocated_bytes = 0;
  uint64_t freed_objects = 0;
  uint64_t freed_bytes = 0;

  std::string ToString() const {
    return absl::StrFormat("%d objects of %d bytes, of them freed %d of %d bytes",
                           allocated_objects, allocated_bytes, freed_objects, freed_bytes);
  }
  friend bool operator==(const Account&, const Account&) = default;
};

class Torture {
 public:
  Torture(const Programs& programs, const Scenario& scenario, Handler handler, Figures* figures,
          Faults* faults)
      : scenario_(scenario),
        handler_(handler),
        scene_(programs, scenario),
        figures_(*figures),
        faults_(*faults) {
    scene_.page().handler = handler;
    ready_ = scene_.ToOperation(&faults_);
    if (ready_) before_ = Look();
  }

  // Executions that are interrupted at every `stride`-th instruction, until `taken` says of the box
  // that one went the way that is meant.
  void Throughout(uint64_t stride, bool (*taken)(const BoxState& box)) {
    constexpr int kMost = 100;
    for (int execution = 0; ready_ && execution < kMost; ++execution) {
      if (!InterruptAll(stride)) return;
      if (taken == nullptr || taken(last_)) return;
      ready_ = scene_.ToOperation(&faults_);
      if (ready_) before_ = Look();
    }
    if (ready_) {
      faults_.push_back(
          absl::StrFormat("%s: did not go the way that it is named after", scenario_.name));
    }
  }

  // Executions that are interrupted once each: at instruction 0, stride, 2 * stride, ... The last one
  // is not interrupted any more, if they all go the same way.
  void Once(uint64_t stride, uint64_t most, bool varies) {
    for (uint64_t at = 0; ready_ && at / stride < most; at += stride) {
      scene_.victim().SetDeadline(std::chrono::seconds(20));
      Stop stop = Stop::kOwn;
      for (uint64_t i = 0; i <= at && stop == Stop::kOwn; ++i) stop = scene_.victim().StepOwn();
      figures_.instructions += at;
      const bool reached = stop == Stop::kOwn;
      if (reached) {
        if (!Signal(at)) return;
        if (!jumped_)
          stop = scene_.victim().RunToMarker(false);
        else
          stop = Stop::kMarker;
      }
      ready_ = Finish(stop, at) && scene_.ToOperation(&faults_);
      if (ready_) before_ = Look();
      if (!reached && !varies) return;
    }
  }

  // 320 MiB in blocks of 4 MiB at an interval of 9 MiB: without a sample with a probability of 4e-16.
  void StillSampling() {
    const BoxState before = Look();
    for (int i = 0; ready_ && i < 80; ++i) {
      ready_ = scene_.ToEnd(&faults_) && scene_.ToOperation(&faults_);
    }
    if (ready_ && Look().totals.samples_taken == before.totals.samples_taken) {
      faults_.push_back(absl::StrFormat("%s: no samples are taken any more", scenario_.name));
    }
  }

  // After jumps: whatever they left, sampling goes on as before.
  void StillWhole() {
    if (!ready_) return;
    // The first operation may still be taken for one of a signal handler's, and is not unwound then.
    for (int i = 0; i < 2; ++i) {
      before_ = Look();
      if (!scene_.ToEnd(&faults_)) return;
      const BoxState after = Look();
      const uint64_t booked = after.totals.samples_taken + after.totals.samples_freed -
                              before_.totals.samples_taken - before_.totals.samples_freed;
      if (booked == 0) {
        faults_.push_back(
            absl::StrFormat("%s: after jumps, samples are no longer booked", scenario_.name));
      }
      if (i == 1 && after.header.losses.unwind_failures != before_.header.losses.unwind_failures) {
        faults_.push_back(
            absl::StrFormat("%s: after jumps, stacks are no longer whole", scenario_.name));
      }
      if (!scene_.ToOperation(&faults_)) return;
    }
  }

 private:
  // One execution.
  bool InterruptAll(uint64_t stride) {
    for (uint64_t i = 0;; ++i) {
      scene_.victim().SetDeadline(std::chrono::seconds(20));
      const Stop stop = scene_.victim().StepOwn();
      if (stop != Stop::kOwn) return Finish(stop, i);
      ++figures_.instructions;
      // A handler that came before would open the box itself.
      if (i % stride == 0 && scene_.box().Present() && !Signal(i)) return false;
    }
  }

  // False if the victim is lost.
  bool Signal(uint64_t at) {
    jumped_ = false;
    if (scene_.victim().Blocks(SIGUSR1)) {
      ++figures_.blocked;
      return true;
    }
    ++figures_.signals;
    const std::string where = scene_.Where();
    const Stop stop = scene_.victim().Interrupt(SIGUSR1);
    jumped_ = stop == Stop::kMarker && handler_ == Handler::kJump;
    if (stop == Stop::kOwn || jumped_) return true;
    faults_.push_back(absl::StrFormat(
        "%s: a signal at instruction %d (%s): %s, status %#x", scenario_.name, at, where,
        stop == Stop::kStuck ? "hangs" : "the victim died", scene_.victim().status()));
    return false;
  }

  Account Booked(const BoxState& state) const {
    Account account;
    for (const auto& [index, sums] : state.stacks) {
      account.allocated_objects += box::WholeObjects(sums.allocated_objects);
      account.allocated_bytes += box::WholeBytes(sums.allocated_bytes);
      account.freed_objects += box::WholeObjects(sums.freed_objects);
      account.freed_bytes += box::WholeBytes(sums.freed_bytes);
    }
    return account;
  }

  BoxState Look() {
    Faults here;
    BoxState state = scene_.Look(&here);
    const kill_test::Page& page = scene_.page();
    handled_ = {.allocated_objects = page.handler_allocated_objects,
                .allocated_bytes = page.handler_allocated_bytes,
                .freed_objects = page.handler_freed_objects,
                .freed_bytes = page.handler_freed_bytes};
    AppendTo(&faults_, here, scenario_.name);
    return state;
  }

  // The end of an execution that was interrupted at `at`. False: do not go on.
  bool Finish(Stop stop, uint64_t at) {
    ++figures_.executions;
    const std::string where = absl::StrFormat("%s, signal at instruction %d", scenario_.name, at);
    if (stop != Stop::kMarker || scene_.victim().marker() != kill_test::kAfter) {
      faults_.push_back(absl::StrFormat("%s: the operation does not end, status %#x", where,
                                        scene_.victim().status()));
      return false;
    }
    const Account earlier = handled_;
    last_ = Look();
    const BoxState& after = last_;
    Faults here;
    // What a jump leaves half done stays so.
    if (handler_ != Handler::kJump) CheckAccounts(after, earlier, &here);
    if (handler_ == Handler::kFork) CheckChildren(&here);
    AppendTo(&faults_, here, where);
    return here.size() < 3;
  }

  void CheckAccounts(const BoxState& after, const Account& earlier, Faults* here) {
    const Disagreement end = Compare(after);
    if (end.stacks != 0 || end.header != 0 || end.live_count != 0) {
      here->push_back(absl::StrFormat("%d stacks, %d bytes in the header, %d samples disagree",
                                      end.stacks, end.header, end.live_count));
    }
    const kill_test::Page& page = scene_.page();
    if (page.exact == 0 || scenario_.from_live > 0) return;
    Account expected = Booked(before_);
    expected.allocated_objects +=
        page.allocated_objects + handled_.allocated_objects - earlier.allocated_objects;
    expected.allocated_bytes +=
        page.allocated_bytes + handled_.allocated_bytes - earlier.allocated_bytes;
    expected.freed_objects += page.freed_objects + handled_.freed_objects - earlier.freed_objects;
    expected.freed_bytes += page.freed_bytes + handled_.freed_bytes - earlier.freed_bytes;
    Account booked = Booked(after);
    // While the box is being opened, what a handler allocates cannot be recorded; it is counted.
    const box::Losses& losses = after.header.losses;
    if (losses.samples > 0) {
      booked.allocated_objects += losses.samples;
      booked.allocated_bytes += box::WholeBytes(losses.sample_bytes);
      booked.freed_objects = expected.freed_objects;
      booked.freed_bytes = expected.freed_bytes;
    }
    if (booked == expected) return;
    here->push_back("the box has " + booked.ToString() + "; it should have " + expected.ToString());
  }

  void CheckChildren(Faults* here) {
    const kill_test::Page& page = scene_.page();
    if (page.children_forked != page.children_finished) {
      here->push_back(absl::StrFormat("of %d children, %d came to their end; status %#x",
                                      page.children_forked.load(), page.children_finished.load(),
                                      page.child_status.load()));
    }
    uint64_t boxes = 0;
    for (const auto& entry : fs::directory_iterator(scene_.boxes())) {
      if (entry.path() == scene_.box().path()) continue;
      if (entry.path().extension() == ".box") {
        ++boxes;
        const std::vector<std::byte> bytes = ReadBytes(entry.path());
        const BoxState state = CheckBox(bytes.data(), bytes.size(), here);
        CheckProfile(bytes.data(), bytes.size(), here);
        const Disagreement end = Compare(state);
        if (end.stacks != 0 || end.header != 0 || end.live_count != 0) {
          here->push_back("a child's box disagrees with itself");
        }
        const Account booked = Booked(state);
        if (booked.allocated_bytes < 20 * 777 || booked.freed_bytes < 10 * 777) {
          here->push_back("a child's box has " + booked.ToString());
        }
      }
      fs::remove(entry.path());
    }
    figures_.children += boxes;
    if (boxes != page.children_forked - children_before_) here->push_back("a child left no box");
    children_before_ = page.children_forked;
  }

  const Scenario& scenario_;
  Handler handler_;
  Scene scene_;
  Figures& figures_;
  Faults& faults_;
  bool ready_ = false;
  bool jumped_ = false;
  uint64_t children_before_ = 0;
  BoxState before_;
  BoxState last_;
  Account handled_;
};

constexpr Scenario kMalloc = {.name = "malloc", .operation = "malloc", .warm_up = 3};
constexpr Scenario kFree = {.name = "free", .operation = "free", .warm_up = 3};
constexpr Scenario kNewStack = {.name = "new stack", .operation = "new_stack"};
constexpr Scenario kRealloc = {.name = "realloc", .operation = "realloc", .warm_up = 3};
constexpr Scenario kFailingRealloc = {.name = "failing realloc", .operation = "realloc_fails"};
constexpr Scenario kDlopen = {.name = "dlopen", .operation = "dlopen"};
constexpr Scenario kOpening = {
    .name = "box opening", .operation = "first_sample", .interval = "0", .with_recorder = false};
constexpr Scenario kLargeMalloc = {
    .name = "end of slice", .operation = "large", .interval = "9MiB"};
constexpr Scenario kRaise = {
    .name = "level raise", .operation = "samples", .argument = "100", .from_live = 139};
constexpr Scenario kThinning = {
    .name = "thinning", .operation = "samples", .argument = "8500", .from_live = 8620};

// Every n-th instruction: by default, and in the long version.
struct Stride {
  uint64_t by_default;
  uint64_t in_long;
};
struct Throughout {
  const Scenario& scenario;
  Stride stride;
  bool (*taken)(const BoxState& box) = nullptr;
};
constexpr Throughout kThroughout[] = {
    {kMalloc, {1, 1}},
    {kFree, {1, 1}},
    {kNewStack, {3, 1}},
    {kRealloc, {1, 1}},
    {kFailingRealloc, {3, 1}},
    {kDlopen, {51, 1}},
    {kOpening, {11, 1}},
    {kRaise, {7, 1}, [](const BoxState& box) { return box.header.sample_levels == 2; }},
    {kThinning, {7, 1}, [](const BoxState& box) { return box.header.losses.thinnings > 0; }},
};
struct Once {
  const Scenario& scenario;
  Handler handler;
  Stride stride;
};
constexpr Once kOnce[] = {
    // who jumps out of realloc cannot know which block is left
    {kMalloc, Handler::kAllocate, {31, 1}},
    {kFree, Handler::kAllocate, {3, 1}},
    {kNewStack, Handler::kAllocate, {499, 13}},
    {kRealloc, Handler::kAllocate, {61, 1}},
    {kFailingRealloc, Handler::kAllocate, {6007, 997}},
    {kMalloc, Handler::kFork, {31, 1}},
    {kFree, Handler::kFork, {3, 1}},
    {kNewStack, Handler::kFork, {499, 13}},
    {kRealloc, Handler::kFork, {61, 1}},
    {kMalloc, Handler::kJump, {31, 1}},
    {kFree, Handler::kJump, {3, 1}},
    {kNewStack, Handler::kJump, {499, 13}},
};

Faults Run(const SteppingOptions& options) {
  Faults faults;
  std::printf("%-18s %-24s %9s %9s %9s %9s %9s\n", "interrupted", "by a handler that", "signals",
              "blocked", "runs", "children", "stepped");
  Figures total;
  const auto row = [&](const char* name, const char* handler, const Figures& figures) {
    std::printf("%-18s %-24s %9llu %9llu %9llu %9llu %9llu\n", name, handler,
                static_cast<unsigned long long>(figures.signals),
                static_cast<unsigned long long>(figures.blocked),
                static_cast<unsigned long long>(figures.executions),
                static_cast<unsigned long long>(figures.children),
                static_cast<unsigned long long>(figures.instructions));
    std::fflush(stdout);
  };
  const auto add = [&](const char* name, const char* handler, const Figures& figures) {
    row(name, handler, figures);
    total.signals += figures.signals;
    total.blocked += figures.blocked;
    total.executions += figures.executions;
    total.children += figures.children;
    total.instructions += figures.instructions;
  };
  const auto wanted = [&](const Scenario& one) {
    return options.only.empty() || options.only == one.name;
  };
  const auto stride = [&](const Stride& one) { return options.all ? one.in_long : one.by_default; };
  for (const Throughout& one : kThroughout) {
    if (!wanted(one.scenario)) continue;
    Figures figures;
    Torture torture(options.programs, one.scenario, Handler::kAllocate, &figures, &faults);
    torture.Throughout(stride(one.stride), one.taken);
    add(one.scenario.name, "allocates, throughout", figures);
  }
  constexpr const char* kHandlers[] = {"allocates, once", "forks, once", "jumps out, once"};
  for (const Once& one : kOnce) {
    if (!wanted(one.scenario)) continue;
    Figures figures;
    Torture torture(options.programs, one.scenario, one.handler, &figures, &faults);
    torture.Once(stride(one.stride), 1'000'000, false);
    if (one.handler == Handler::kJump) torture.StillWhole();
    add(one.scenario.name, kHandlers[static_cast<int>(one.handler)], figures);
  }
  if (wanted(kLargeMalloc)) {
    Figures figures;
    Torture torture(options.programs, kLargeMalloc, Handler::kAllocate, &figures, &faults);
    // As far as the countdown is concerned; which way it goes is random.
    for (int round = 0; round < (options.all ? 200 : 12); ++round) torture.Once(1, 60, true);
    torture.StillSampling();
    add(kLargeMalloc.name, kHandlers[0], figures);
  }
  row("in all", "", total);
  return faults;
}

}  // namespace
}  // namespace heapflare::test

int main(int argc, char** argv) {
  return heapflare::test::RunStepping(argc, argv, heapflare::test::Run);
}
