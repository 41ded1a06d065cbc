// Kills a program between any two instructions of the recorder's slow paths.
//
//   kill_steps --victim=FILE --plugin=FILE --library=FILE [--long] [--only=SCENARIO]
//
// The victim is single-stepped with ptrace through one operation. Before each instruction the box is
// compared with what it was before the last one; each state that differs is what a SIGKILL at this
// instant would leave, and is held to all promises of the format, to a valid profile, and to the
// operation: sums only grow, and end exactly where the operation takes them; no sample but the
// operation's own comes or goes. Some steps are taken with a real SIGKILL, to see that what it leaves
// is what was looked at, byte by byte.
//
// Exit status: 0, 1 for a fault, 77 where ptrace is not allowed. x86_64.
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <random>

#include "absl/strings/str_format.h"
#include "kill_scene.h"
#include "lib/profile/load.h"

namespace heapflare::test {
namespace {

namespace fs = std::filesystem;
using Stop = Tracee::Stop;

// A scenario, and what must have come of it: else it did not go the way that it is named after.
struct Way {
  Scenario scenario;
  bool (*taken)(const BoxState& before, const BoxState& after);
  // It may take some operations more, each of which is stepped, until one goes that way.
  int operations = 1;
};

uint64_t Missing(const BoxState& before, const BoxState& after) {
  return static_cast<uint64_t>(
      std::count_if(before.samples.begin(), before.samples.end(),
                    [&](const auto& entry) { return !after.samples.contains(entry.first); }));
}

// The smallest box has 203 samples in its first level, of which 140 put the second into use, and
// 17,255 in all, of which 8,627 thin; both when a free slot is far.
const Way kWays[] = {
    {{.name = "malloc", .operation = "malloc", .warm_up = 3},
     [](const BoxState& before, const BoxState& after) {
       return after.samples.size() == before.samples.size() + 1 &&
              after.stacks.size() == before.stacks.size();
     }},
    {{.name = "free", .operation = "free", .warm_up = 3},
     [](const BoxState& before, const BoxState& after) { return Missing(before, after) == 1; }},
    {{.name = "new stack", .operation = "new_stack"},
     [](const BoxState& before, const BoxState& after) {
       return after.stacks.size() == before.stacks.size() + 1 && after.locations > before.locations;
     }},
    {{.name = "realloc", .operation = "realloc", .warm_up = 3},
     [](const BoxState& before, const BoxState& after) {
       return after.totals.samples_freed == before.totals.samples_freed + 1 &&
              after.totals.samples_taken == before.totals.samples_taken + 1;
     }},
    {{.name = "failing realloc", .operation = "realloc_fails"},
     [](const BoxState& before, const BoxState& after) { return Missing(before, after) == 0; }},
    {{.name = "dlopen", .operation = "dlopen"},
     [](const BoxState& before, const BoxState& after) {
       return after.modules > before.modules && after.placed > before.placed;
     }},
    {{.name = "box opening", .operation = "first_sample", .interval = "0", .with_recorder = false},
     [](const BoxState& before, const BoxState& after) {
       return !before.open && after.open && after.samples.size() == 1;
     }},
    {{.name = "level raise", .operation = "samples", .argument = "90", .from_live = 131},
     [](const BoxState& before, const BoxState& after) {
       return after.header.sample_levels == before.header.sample_levels + 1;
     },
     100},
    {{.name = "thinning", .operation = "samples", .argument = "8000", .from_live = 8110},
     [](const BoxState& before, const BoxState& after) {
       return after.header.losses.thinnings == 1 && after.header.interval > before.header.interval;
     },
     100},
};

struct Figures {
  uint64_t instructions = 0;
  uint64_t states = 0;
  uint64_t kills = 0;
  uint64_t files = 0;  // dumps seen appear
};

// What one pass through an operation went by.
class Passage {
 public:
  Passage(Scene& scene, const Way& way, Figures* figures, Faults* faults)
      : scene_(scene), way_(way), figures_(*figures), faults_(*faults) {}

  // False if the victim did not get to its end.
  bool Step(uint64_t* instructions) {
    scene_.box().Changed(true);
    if (!scene_.box().Present()) {
      states_.emplace_back();
      ++before_call_;
    }
    Note();
    uint64_t steps = 0;
    for (;; ++steps) {
      if (steps % 1024 == 0) scene_.victim().SetDeadline(std::chrono::seconds(60));
      const Stop stop = scene_.victim().StepOwn();
      if (stop == Stop::kMarker) break;
      if (stop != Stop::kOwn) {
        faults_.push_back(absl::StrFormat("%s: stopped after %d instructions, status %#x",
                                          scene_.Where(), steps, scene_.victim().status()));
        return false;
      }
      if (scene_.box().Changed(steps % 1024 == 1023)) Note();
    }
    if (scene_.box().Changed(true)) Note();
    figures_.instructions += steps;
    *instructions = steps;
    if (scene_.victim().marker() != kill_test::kAfter) {
      faults_.push_back(scene_.Where() + ": came to another marker");
      return false;
    }
    Judge();
    return true;
  }

  // The way that it is named after.
  bool went() const { return went_; }

 private:
  void Note() {
    if (!scene_.box().Present()) return;
    ++figures_.states;
    const std::vector<std::byte>& bytes = scene_.box().copy();
    Faults here;
    BoxState state = CheckBox(bytes.data(), bytes.size(), &here);
    CheckProfile(bytes.data(), bytes.size(), &here);
    if (!states_.empty()) CheckOrder(states_.back(), state, &here);
    AppendTo(&faults_, here, scene_.Where());
    states_.push_back(std::move(state));
    if (scene_.victim().skipped_calls() == calls_before_) ++before_call_;
  }

  void Judge() {
    const BoxState& before = states_.front();
    const BoxState& after = states_.back();
    Faults here;
    went_ = way_.taken(before, after);
    const kill_test::Page& page = scene_.page();
    const bool exact = page.exact.load() != 0;
    if (exact) {
      const auto sum = [](const BoxState& state, uint64_t Sums::*member) {
        uint64_t total = 0;
        for (const auto& [index, sums] : state.stacks) total += sums.*member;
        return total;
      };
      const auto expect = [&](const char* what, uint64_t Sums::*member, uint64_t wanted,
                              int shift) {
        const uint64_t grown = sum(after, member) - sum(before, member);
        if (grown != wanted << shift) {
          here.push_back(absl::StrFormat("%s grew by %d, not %d", what, grown >> shift, wanted));
        }
      };
      expect("allocated objects", &Sums::allocated_objects, page.allocated_objects,
             box::kObjectShift);
      expect("allocated bytes", &Sums::allocated_bytes, page.allocated_bytes, box::kByteShift);
      expect("freed objects", &Sums::freed_objects, page.freed_objects, box::kObjectShift);
      expect("freed bytes", &Sums::freed_bytes, page.freed_bytes, box::kByteShift);
    }
    const uint64_t moved = page.allocated_bytes + page.freed_bytes;
    for (const BoxState& state : states_) {
      const Disagreement disagreement = Compare(state);
      const Passing passing = exact ? CompareSamples(before, state, after) : Passing{};
      // A failing realloc takes its sample out and puts it back.
      if (disagreement.stacks > 2 || disagreement.live_count > 1 || passing.strange > 0 ||
          passing.missing > 1) {
        here.push_back(absl::StrFormat(
            "in between, more than one operation explains: %d stacks and %d samples disagree, %d "
            "are strange, %d missing",
            disagreement.stacks, disagreement.live_count, passing.strange, passing.missing));
      }
      // A failing realloc has its block of 500 bytes out of the table for a while.
      if (exact && disagreement.bytes > std::max<uint64_t>(moved, 500)) {
        here.push_back(absl::StrFormat("in between, sums are off by %d bytes", disagreement.bytes));
      }
    }
    const BoxState& at_call = states_[before_call_ - 1];
    // Before the real free or realloc: afterwards another thread may own the address.
    if (page.freed_objects > 0 && exact && Missing(before, at_call) != 1) {
      here.push_back("a block is given back while the box still has its sample");
    }
    if (page.freed_objects > 0 && page.allocated_objects == 0 && before_call_ != states_.size()) {
      here.push_back("a free is booked after the real one");
    }
    if (exact && at_call.totals.allocated_bytes != before.totals.allocated_bytes) {
      here.push_back("an allocation is booked before the real one");
    }
    const Disagreement end = Compare(after);
    if (end.stacks != 0 || end.header != 0 || end.live_count != 0) {
      here.push_back("after the operation, the box's accounts disagree");
    }
    AppendTo(&faults_, here, way_.scenario.name);
  }

  Scene& scene_;
  const Way& way_;
  Figures& figures_;
  Faults& faults_;
  std::vector<BoxState> states_;
  bool went_ = false;
  const uint64_t calls_before_ = scene_.victim().skipped_calls();
  // The first so many states come before the real allocator is called.
  size_t before_call_ = 0;
};

// Steps to the n-th instruction, kills there, and compares what the file holds with what was seen.
void KillAt(const Programs& programs, const Scenario& scenario, uint64_t n, Figures* figures,
            Faults* faults) {
  Scene scene(programs, scenario);
  if (!scene.ToOperation(faults)) return;
  scene.victim().SetDeadline(std::chrono::seconds(60));
  for (uint64_t i = 0; i <= n; ++i) {
    if (scene.victim().StepOwn() != Stop::kOwn) return;  // it was shorter this time
  }
  figures->instructions += n;
  scene.box().Changed(true);
  const std::vector<std::byte> seen = scene.box().copy();
  scene.victim().Kill();
  ++figures->kills;
  if (!scene.box().Present()) return;
  const std::vector<std::byte> left = ReadBytes(scene.box().path());
  if (left != seen)
    faults->push_back(absl::StrFormat("%s: a kill leaves another box", scenario.name));
  Faults here;
  CheckBox(left.data(), left.size(), &here);
  AppendTo(faults, here, scenario.name);
}

// A dump appears complete or not at all. The recorder's thread is stepped from the system call that
// renames the file on; with `all`, from the beginning. (In between it reads the box and compresses,
// so every system call is a step there.)
class DumpPassage {
 public:
  DumpPassage(Scene& scene, Figures* figures, Faults* faults)
      : scene_(scene), figures_(*figures), faults_(*faults), last_(scene.Look(faults)) {}

  void Run(bool all) {
    Tracee& victim = scene_.victim();
    victim.LetMainRun();
    // The thread sleeps; it wakes when the request is there.
    Stop stop = victim.StepRecorder();
    victim.HoldMain();
    bool renaming = all;
    // After the dump is counted, the thread removes surplus dumps, tells main, and goes to sleep.
    for (int left = 5000; stop == Stop::kOwn && left > 0;) {
      victim.SetDeadline(std::chrono::seconds(60));
      if (renaming) {
        stop = victim.StepRecorder();
        ++figures_.instructions;
      } else {
        uint64_t call = 0;
        stop = victim.RunRecorderToSystemCall(&call);
        renaming = call == SYS_linkat || call == SYS_renameat2;
      }
      Look();
      if (last_.header.dumps > 0) --left;
    }
    if (stop != Stop::kOwn) faults_.push_back("the recorder's thread does not go on");
    if (figures_.instructions == 0) faults_.push_back("the file appeared in an unknown way");
    if (figures_.files == 0 || last_.header.dumps != 1) faults_.push_back("no dump was written");
  }

 private:
  void Look() {
    if (scene_.box().Changed(figures_.instructions % 1024 == 1023)) {
      ++figures_.states;
      const std::vector<std::byte>& bytes = scene_.box().copy();
      BoxState state = CheckBox(bytes.data(), bytes.size(), &faults_);
      CheckOrder(last_, state, &faults_);
      last_ = std::move(state);
    }
    struct stat status = {};
    stat(scene_.dumps().c_str(), &status);
    const long now = status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec;
    if (now == directory_time_) return;
    directory_time_ = now;
    for (const auto& entry : fs::directory_iterator(scene_.dumps())) {
      if (!entry.path().filename().string().ends_with(".pb.gz")) continue;
      ++figures_.files;
      const auto profile = profile::LoadFile(entry.path());
      if (!profile.ok()) faults_.push_back(profile.status().ToString());
    }
  }

  Scene& scene_;
  Figures& figures_;
  Faults& faults_;
  BoxState last_;
  long directory_time_ = 0;
};

Faults Run(const SteppingOptions& options) {
  std::mt19937_64 random(std::random_device{}());
  Faults faults;
  Figures total;
  std::printf("%-20s %14s %10s %10s\n", "stepped through", "instructions", "states", "SIGKILLs");
  const auto print = [](const char* name, const Figures& figures) {
    std::printf("%-20s %14llu %10llu %10llu\n", name,
                static_cast<unsigned long long>(figures.instructions),
                static_cast<unsigned long long>(figures.states),
                static_cast<unsigned long long>(figures.kills));
    std::fflush(stdout);
  };
  const auto add = [&](const char* name, const Figures& figures) {
    print(name, figures);
    total.instructions += figures.instructions;
    total.states += figures.states;
    total.kills += figures.kills;
    total.files += figures.files;
  };
  const std::string& only = options.only;
  const Programs& programs = options.programs;
  for (const Way& way : kWays) {
    const Scenario& scenario = way.scenario;
    if (!only.empty() && only != scenario.name) continue;
    Figures figures;
    uint64_t instructions = 0;
    {
      Scene scene(programs, scenario);
      bool went = false;
      for (int i = 0; i < way.operations && !went && scene.ToOperation(&faults); ++i) {
        Passage passage(scene, way, &figures, &faults);
        if (!passage.Step(&instructions)) break;
        went = passage.went();
      }
      if (!went) AppendTo(&faults, {"did not go the way that it is named after"}, scenario.name);
    }
    // Each costs the way there.
    const int kills =
        options.all ? (instructions > 20'000 ? 10 : 100) : (instructions > 20'000 ? 0 : 8);
    for (int i = 0; i < kills && instructions > 0; ++i) {
      KillAt(programs, scenario, random() % instructions, &figures, &faults);
    }
    add(scenario.name, figures);
  }
  if (only.empty() || only == "dump") {
    const Scenario scenario = {.name = "dump", .operation = "dump"};
    Figures figures;
    Faults here;
    Scene scene(programs, scenario);
    if (scene.ToOperation(&here)) {
      DumpPassage(scene, &figures, &here).Run(options.all);
      scene.ToEnd(&here);
    }
    AppendTo(&faults, here, "dump");
    add("dump", figures);
  }
  print("in all", total);
  return faults;
}

}  // namespace
}  // namespace heapflare::test

int main(int argc, char** argv) {
  return heapflare::test::RunStepping(argc, argv, heapflare::test::Run);
}
