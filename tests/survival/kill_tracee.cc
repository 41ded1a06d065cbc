#include "kill_tracee.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "kill_steps.h"

namespace heapflare::test {
namespace {

constexpr uint8_t kBreakpoint = 0xcc;

// Interrupts waitpid now and then, so that deadlines are seen.
void TickEverySecond() {
  struct sigaction action = {};
  action.sa_handler = [](int) {};  // without SA_RESTART
  sigaction(SIGALRM, &action, nullptr);
  const itimerval second = {.it_interval = {1, 0}, .it_value = {1, 0}};
  setitimer(ITIMER_REAL, &second, nullptr);
}

// The functions that the library exports: offsets in its file's image.
std::vector<uint64_t> ExportedFunctions(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  const std::string bytes = text.str();
  const auto* const header = reinterpret_cast<const ElfW(Ehdr)*>(bytes.data());
  const auto* const sections = reinterpret_cast<const ElfW(Shdr)*>(bytes.data() + header->e_shoff);
  std::vector<uint64_t> result;
  for (int i = 0; i < header->e_shnum; ++i) {
    if (sections[i].sh_type != SHT_DYNSYM) continue;
    const auto* const symbols =
        reinterpret_cast<const ElfW(Sym)*>(bytes.data() + sections[i].sh_offset);
    for (size_t k = 0; k < sections[i].sh_size / sizeof(ElfW(Sym)); ++k) {
      if (ELF64_ST_TYPE(symbols[k].st_info) == STT_FUNC && symbols[k].st_shndx != SHN_UNDEF) {
        result.push_back(symbols[k].st_value);
      }
    }
  }
  std::sort(result.begin(), result.end());
  result.erase(std::unique(result.begin(), result.end()), result.end());
  return result;
}

}  // namespace

Tracee::Tracee(const std::vector<std::string>& arguments,
               const std::vector<std::string>& environment, std::string library)
    : library_(std::move(library)) {
  TickEverySecond();
  SetDeadline(std::chrono::seconds(30));
  std::vector<char*> argument_pointers;
  for (const std::string& text : arguments)
    argument_pointers.push_back(const_cast<char*>(text.c_str()));
  argument_pointers.push_back(nullptr);
  const std::string preload = "LD_PRELOAD=" + library_;
  std::vector<char*> environment_pointers = {const_cast<char*>(preload.c_str())};
  for (const std::string& text : environment)
    environment_pointers.push_back(const_cast<char*>(text.c_str()));
  environment_pointers.push_back(nullptr);
  pid_ = fork();
  if (pid_ == 0) {
    raise(SIGSTOP);
    execve(argument_pointers[0], argument_pointers.data(), environment_pointers.data());
    _exit(127);
  }
  int status = 0;
  if (pid_ < 0 || waitpid(pid_, &status, WUNTRACED) != pid_) throw std::runtime_error("no process");
  if (ptrace(PTRACE_SEIZE, pid_, nullptr, PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL) != 0) {
    throw std::runtime_error("ptrace is not allowed here");
  }
  kill(pid_, SIGCONT);
}

Tracee::~Tracee() { Kill(); }

void Tracee::Kill() {
  if (pid_ == 0) return;
  kill(pid_, SIGKILL);
  int status = 0;
  // All its threads, the first one last.
  for (pid_t ended = 0; ended != pid_;) {
    ended = waitpid(-1, &status, __WALL);
    if (ended < 0 && errno != EINTR) break;
    if (ended == pid_ && !WIFSIGNALED(status) && !WIFEXITED(status)) ended = 0;
  }
  status_ = status;
  pid_ = 0;
  if (memory_ >= 0) close(memory_);
  memory_ = -1;
}

void Tracee::SetDeadline(std::chrono::milliseconds from_now) {
  deadline_ = std::chrono::steady_clock::now() + from_now;
}

uint64_t Tracee::Register(pid_t thread, size_t offset) const {
  return static_cast<uint64_t>(ptrace(PTRACE_PEEKUSER, thread, offset, nullptr));
}

void Tracee::SetPc(uint64_t pc) {
  ptrace(PTRACE_POKEUSER, pid_, offsetof(user_regs_struct, rip), pc);
  pc_ = pc;
}

uint64_t Tracee::ReadWord(uint64_t address) const {
  uint64_t word = 0;
  if (pread(memory_, &word, sizeof(word), static_cast<off_t>(address)) != sizeof(word)) return 0;
  return word;
}

uint8_t Tracee::ReadCode(uint64_t address) const {
  uint8_t byte = 0;
  if (pread(memory_, &byte, 1, static_cast<off_t>(address)) != 1) return 0;
  return byte;
}

void Tracee::WriteCode(uint64_t address, uint8_t byte) {
  if (pwrite(memory_, &byte, 1, static_cast<off_t>(address)) != 1) {
    throw std::runtime_error("cannot set a breakpoint");
  }
}

void Tracee::FindLibrary() {
  std::ifstream maps("/proc/" + std::to_string(pid_) + "/maps");
  for (std::string line; std::getline(maps, line);) {
    if (!line.ends_with(library_)) continue;
    unsigned long start = 0;
    unsigned long limit = 0;
    char modes[5] = {};
    if (sscanf(line.c_str(), "%lx-%lx %4s", &start, &limit, modes) != 3) continue;
    if (library_start_ == 0) library_start_ = start;
    if (modes[2] == 'x') {
      text_start_ = start;
      text_limit_ = limit;
    }
  }
  if (text_start_ == 0) throw std::runtime_error("the library is not mapped");
  for (const uint64_t offset : ExportedFunctions(library_))
    hooks_.push_back(library_start_ + offset);
  memory_ = open(("/proc/" + std::to_string(pid_) + "/mem").c_str(), O_RDWR | O_CLOEXEC);
}

void Tracee::Resume(pid_t thread, int request, int signal) {
  ptrace(static_cast<__ptrace_request>(request), thread, nullptr, signal);
}

void Tracee::NoteThread(pid_t thread) {
  if (recorder_ == 0 || thread != recorder_) recorder_ = thread;
  recorder_held_ = !recorder_may_run_;
  if (recorder_may_run_) Resume(thread, PTRACE_CONT);
}

Tracee::Stop Tracee::WaitFor(pid_t thread, int request) {
  for (;;) {
    int status = 0;
    const pid_t stopped = waitpid(-1, &status, __WALL);
    if (stopped < 0) {
      if (errno == EINTR && std::chrono::steady_clock::now() < deadline_) continue;
      return errno == EINTR ? Stop::kStuck : Stop::kEnded;
    }
    if (WIFEXITED(status) || WIFSIGNALED(status)) {
      if (stopped != pid_) {
        if (stopped == recorder_) recorder_ = 0;
        continue;
      }
      status_ = status;
      pid_ = 0;
      return Stop::kEnded;
    }
    const int signal = WSTOPSIG(status);
    const int event = status >> 16;
    if (event == PTRACE_EVENT_CLONE) {
      Resume(stopped, stopped == thread ? request : PTRACE_CONT);
      continue;
    }
    if (event == PTRACE_EVENT_STOP && stopped != thread) {
      NoteThread(stopped);
      continue;
    }
    if (stopped != thread) {
      // The recorder's thread has no signals of its own; the main thread's are passed on.
      Resume(stopped, PTRACE_CONT, signal == SIGTRAP ? 0 : signal);
      continue;
    }
    if (event == PTRACE_EVENT_STOP) {
      if (thread == pid_) {
        Resume(stopped, request);
        continue;
      }
      return Stop::kOwn;
    }
    if (signal == SIGTRAP) {
      if (thread == pid_) pc_ = Register(pid_, offsetof(user_regs_struct, rip));
      return Stop::kOwn;
    }
    // A crash is reported by the death that follows.
    Resume(stopped, request, signal);
  }
}

Tracee::Stop Tracee::ClassifyTrap() {
  const uint64_t value = Register(pid_, offsetof(user_regs_struct, rax));
  if ((value & ~uint64_t{0xff}) == 0x4b00 && ReadCode(pc_ - 1) == kBreakpoint) {
    marker_ = value;
    return Stop::kMarker;
  }
  return Stop::kOwn;
}

Tracee::Stop Tracee::RunToMarker(bool with_recorder, int signal) {
  if (with_recorder) {
    recorder_may_run_ = true;
    if (recorder_held_) Resume(recorder_, PTRACE_CONT);
    recorder_held_ = false;
  } else {
    HoldRecorder();
  }
  if (memory_ >= 0) Resume(pid_, PTRACE_CONT, signal);
  const Stop stop = WaitFor(pid_, PTRACE_CONT);
  if (stop != Stop::kOwn) return stop;
  if (memory_ < 0) FindLibrary();
  const Stop kind = ClassifyTrap();
  return kind == Stop::kMarker ? kind : Stop::kStuck;
}

void Tracee::ServeRecorder() {
  int status = 0;
  const pid_t stopped = waitpid(-1, &status, __WALL | WNOHANG);
  if (stopped > 0 && stopped != pid_ && WIFSTOPPED(status)) NoteThread(stopped);
}

void Tracee::HoldRecorder() {
  recorder_may_run_ = false;
  if (recorder_ == 0 || recorder_held_) return;
  ptrace(PTRACE_INTERRUPT, recorder_, nullptr, nullptr);
  int status = 0;
  while (waitpid(recorder_, &status, __WALL) < 0 && errno == EINTR) {
  }
  recorder_held_ = true;
}

Tracee::Stop Tracee::StepOne() {
  Resume(pid_, PTRACE_SINGLESTEP);
  return WaitFor(pid_, PTRACE_SINGLESTEP);
}

Tracee::Stop Tracee::RunToAny(const std::vector<uint64_t>& addresses) {
  std::vector<uint8_t> saved;
  for (const uint64_t address : addresses) {
    saved.push_back(ReadCode(address));
    WriteCode(address, kBreakpoint);
  }
  Resume(pid_, PTRACE_CONT);
  const Stop stop = WaitFor(pid_, PTRACE_CONT);
  if (stop == Stop::kEnded) return stop;
  if (stop == Stop::kStuck) {
    ptrace(PTRACE_INTERRUPT, pid_, nullptr, nullptr);
    return stop;
  }
  for (size_t i = 0; i < addresses.size(); ++i) WriteCode(addresses[i], saved[i]);
  if (std::find(addresses.begin(), addresses.end(), pc_ - 1) != addresses.end()) {
    SetPc(pc_ - 1);
    return Stop::kOwn;
  }
  return ClassifyTrap() == Stop::kMarker ? Stop::kMarker : Stop::kStuck;
}

Tracee::Stop Tracee::StepOwn() {
  const bool from_library = InLibrary(pc_);
  if (from_library || in_helper_) {
    const Stop stop = StepOne();
    if (stop != Stop::kOwn) return stop;
    if (InLibrary(pc_)) {
      in_helper_ = false;
      return Stop::kOwn;
    }
    if (in_helper_) return Stop::kOwn;
    const uint64_t back = ReadWord(Register(pid_, offsetof(user_regs_struct, rsp)));
    if (std::find(skipped_.begin(), skipped_.end(), pc_) != skipped_.end()) {
      ++skipped_calls_;
      return RunToAny(InLibrary(back) ? std::vector<uint64_t>{back} : hooks_);
    }
    if (InLibrary(back)) {
      in_helper_ = true;
      return Stop::kOwn;
    }
  }
  return RunToAny(hooks_);
}

bool Tracee::Blocks(int signal) const {
  uint64_t blocked = 0;
  ptrace(PTRACE_GETSIGMASK, pid_, sizeof(blocked), &blocked);
  return (blocked & (uint64_t{1} << (signal - 1))) != 0;
}

Tracee::Stop Tracee::Interrupt(int signal) {
  const uint64_t pc = pc_;
  const uint64_t sp = Register(pid_, offsetof(user_regs_struct, rsp));
  Resume(pid_, PTRACE_CONT, signal);
  Stop stop = WaitFor(pid_, PTRACE_CONT);
  if (stop != Stop::kOwn) return stop;
  if (ClassifyTrap() != Stop::kMarker) return Stop::kStuck;
  // It jumped out of the operation.
  if (marker_ != kill_test::kHandled) return Stop::kMarker;
  // Out of the handler and through sigreturn.
  for (int i = 0; i < 200; ++i) {
    stop = StepOne();
    if (stop != Stop::kOwn) return stop;
    if (pc_ == pc && Register(pid_, offsetof(user_regs_struct, rsp)) == sp) return Stop::kOwn;
  }
  return Stop::kStuck;
}

void Tracee::LetMainRun() { Resume(pid_, PTRACE_CONT); }

void Tracee::HoldMain() {
  ptrace(PTRACE_INTERRUPT, pid_, nullptr, nullptr);
  int status = 0;
  while (waitpid(pid_, &status, __WALL) < 0 && errno == EINTR) {
  }
}

Tracee::Stop Tracee::RunRecorder(int request) {
  Resume(recorder_, request);
  for (;;) {
    int status = 0;
    if (waitpid(recorder_, &status, __WALL) == recorder_) {
      return WIFSTOPPED(status) ? Stop::kOwn : Stop::kEnded;
    }
    if (errno != EINTR) return Stop::kEnded;
    if (std::chrono::steady_clock::now() > deadline_) return Stop::kStuck;
  }
}

Tracee::Stop Tracee::StepRecorder() { return RunRecorder(PTRACE_SINGLESTEP); }

Tracee::Stop Tracee::RunRecorderToSystemCall(uint64_t* number) {
  const Stop stop = RunRecorder(PTRACE_SYSCALL);
  if (stop == Stop::kOwn) *number = Register(recorder_, offsetof(user_regs_struct, orig_rax));
  return stop;
}

}  // namespace heapflare::test
