// One victim on its stage: kill_steps_victim, traced, with a box directory of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kill_box_check.h"
#include "kill_steps.h"
#include "kill_tracee.h"

namespace heapflare::test {

struct Programs {
  std::string victim, plugin, library;
  std::string directory;  // where scenes are set; on tmpfs
};

// What a victim does between its markers; see kill_steps_victim.cc.
struct Scenario {
  const char* name;           // of the test
  const char* operation;      // of the victim
  const char* argument = "";  // empty: the plugin
  const char* interval = "1";
  // Operations pass at full speed: so many, and until this many samples are live.
  uint64_t warm_up = 0;
  uint64_t from_live = 0;
  // The recorder's thread runs until it has seen the memory once; else it never runs.
  bool with_recorder = true;
};

// A box of a living process, as a reader would find it if the process died now. (The mapping is
// shared: its bytes do not depend on whether its writer lives.)
class BoxWatch {
 public:
  explicit BoxWatch(std::string directory);
  ~BoxWatch();
  BoxWatch(const BoxWatch&) = delete;
  BoxWatch& operator=(const BoxWatch&) = delete;

  // True once there is a box; looks for it.
  bool Present();
  // True if anything differs from the last copy, which is then brought up to date. Looks at what
  // regions have in use; with `thorough` at all.
  bool Changed(bool thorough);
  const std::vector<std::byte>& copy() const { return copy_; }
  const std::string& path() const { return path_; }

 private:
  bool Refresh(uint64_t offset, uint64_t bytes);

  std::string directory_;
  std::string path_;
  const std::byte* live_ = nullptr;
  std::vector<std::byte> copy_;
};

class Scene {
 public:
  Scene(const Programs& programs, const Scenario& scenario);
  ~Scene();
  Scene(const Scene&) = delete;
  Scene& operator=(const Scene&) = delete;

  // To the marker before the next operation (from_live). False, with a fault, if it does not get there.
  bool ToOperation(Faults* faults);
  // From wherever the victim is to the marker after the operation, at full speed.
  bool ToEnd(Faults* faults);
  // The box as it is now, checked; its profile too.
  BoxState Look(Faults* faults);
  // "in CommitAllocation+0x12" as an offset that addr2line understands.
  std::string Where() const;

  kill_test::Page& page() { return *page_; }
  Tracee& victim() { return *tracee_; }
  BoxWatch& box() { return *box_; }
  const std::string& boxes() const { return boxes_; }
  const std::string& dumps() const { return dumps_; }

 private:
  bool Run(uint64_t to, Faults* faults);
  bool AwaitRecorder(Faults* faults);
  box::Header HeaderNow();

  const Scenario& scenario_;
  std::string place_;
  std::string boxes_;
  std::string dumps_;
  kill_test::Page* page_ = nullptr;
  std::unique_ptr<BoxWatch> box_;
  std::unique_ptr<Tracee> tracee_;
  bool started_ = false;
};

// --NAME=VALUE of both drivers.
struct SteppingOptions {
  Programs programs;
  std::string only;  // the name of one scenario; empty: all
  bool all = false;  // --long
};
// The main function of both: parses, runs, cleans up, prints the faults. Exit status: 0, 1 for a
// fault, 77 where ptrace is not allowed.
int RunStepping(int argc, char** argv, Faults (*run)(const SteppingOptions& options));

void AppendTo(Faults* all, const Faults& some, const std::string& where);

}  // namespace heapflare::test
