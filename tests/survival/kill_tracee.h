// A traced program that is run instruction by instruction through what libheapflare.so does in it.
//
// "Own" instructions are those of the library and of the libc functions that it calls (memcpy),
// but not of the allocator that it passes calls on to. All other code runs at full speed: it does not
// touch the box, so that a kill between two of its instructions leaves what a kill before them leaves.
//
// The recorder's thread is held where it is, unless a function says that it lets it run. x86_64.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace heapflare::test {

class Tracee {
 public:
  enum class Stop {
    kOwn,     // before an own instruction
    kMarker,  // marker() tells which
    kStuck,   // nothing happened until the deadline
    kEnded,   // the program ended; status() tells how
  };

  // Starts the program with the library preloaded.
  Tracee(const std::vector<std::string>& arguments, const std::vector<std::string>& environment,
         std::string library);
  // Kills it.
  ~Tracee();
  Tracee(const Tracee&) = delete;
  Tracee& operator=(const Tracee&) = delete;

  // Functions whose insides are not stepped through.
  void SkipFunctions(std::vector<uint64_t> addresses) { skipped_ = std::move(addresses); }

  // Lets the program run to its next marker; with or without the recorder's thread.
  Stop RunToMarker(bool with_recorder, int signal = 0);
  // Lets the recorder's thread start, while the main thread stands at a marker. Does not wait.
  void ServeRecorder();
  // Stops the recorder's thread wherever it is.
  void HoldRecorder();
  // To the next own instruction, at least one further; or to a marker. Of the main thread.
  Stop StepOwn();
  // One instruction of the main thread, whatever it is.
  Stop StepOne();
  // Delivers the signal here, runs the handler to its marker, and returns to the interrupted
  // instruction. Not to be called where the signal is blocked.
  Stop Interrupt(int signal);
  bool Blocks(int signal) const;
  // One instruction of the recorder's thread.
  Stop StepRecorder();
  // Runs the recorder's thread to the beginning or the end of a system call, whose number is then
  // in `number`.
  Stop RunRecorderToSystemCall(uint64_t* number);
  void LetMainRun();
  void HoldMain();

  void Kill();

  pid_t pid() const { return pid_; }
  pid_t recorder() const { return recorder_; }
  uint64_t marker() const { return marker_; }
  int status() const { return status_; }
  uint64_t pc() const { return pc_; }
  // How often own code went on to a skipped function, by a call or a jump.
  uint64_t skipped_calls() const { return skipped_calls_; }
  bool InLibrary(uint64_t address) const { return address >= text_start_ && address < text_limit_; }
  // Offset in the library's file, for addr2line.
  uint64_t LibraryOffset(uint64_t address) const { return address - library_start_; }
  // How long anything may take before it is called stuck.
  void SetDeadline(std::chrono::milliseconds from_now);

 private:
  uint64_t Register(pid_t thread, size_t offset) const;
  void SetPc(uint64_t pc);
  uint64_t ReadWord(uint64_t address) const;
  void WriteCode(uint64_t address, uint8_t byte);
  uint8_t ReadCode(uint64_t address) const;
  void FindLibrary();
  // Waits for a stop of `thread` by SIGTRAP or an event; passes other signals on.
  Stop WaitFor(pid_t thread, int request);
  Stop ClassifyTrap();
  // Runs until the breakpoint at one of `addresses`, or a marker.
  Stop RunToAny(const std::vector<uint64_t>& addresses);
  void NoteThread(pid_t thread);
  Stop RunRecorder(int request);
  void Resume(pid_t thread, int request, int signal = 0);

  pid_t pid_ = 0;
  pid_t recorder_ = 0;
  bool recorder_held_ = false;
  bool recorder_may_run_ = false;
  bool in_helper_ = false;
  int status_ = 0;
  uint64_t marker_ = 0;
  uint64_t pc_ = 0;
  int memory_ = -1;
  std::string library_;
  uint64_t library_start_ = 0;
  uint64_t text_start_ = 0;
  uint64_t text_limit_ = 0;
  std::vector<uint64_t> hooks_;
  std::vector<uint64_t> skipped_;
  uint64_t skipped_calls_ = 0;
  std::chrono::steady_clock::time_point deadline_;
};

}  // namespace heapflare::test
