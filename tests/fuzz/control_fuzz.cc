// The control file, of both sides: whatever is in it, lib/recorder/control_server answers it once or
// leaves it, and lib/control/client gets an answer or an error in time. Input: flags, a time-out's
// worth of contents that a third party writes while the client waits, and the file's first contents.
#include <cstddef>
#include <filesystem>

#include "lib/base/syscall.h"
#include "lib/box/control.h"
#include "lib/control/client.h"
#include "lib/recorder/control_server.h"
#include "lib/recorder/own_process.h"
#include "lib/recorder/recorder.h"
#include "tests/fuzz/file_tree.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/recorder_stub.h"

namespace heapflare::fuzz {
namespace {

constexpr size_t kFileBytes = box::kAnswerOffset + sizeof(box::ControlAnswer);

// What happens while the client pauses between two looks (it calls nanosleep, see below).
int control_fd = -1;
bool serve = false;
std::string_view intruder;

box::ControlRequest ReadRequest() {
  box::ControlRequest request = {};
  const ssize_t got = pread(control_fd, &request, sizeof(request), box::kRequestOffset);
  return got == sizeof(request) ? request : box::ControlRequest{};
}

void ServeOnce() {
  const box::ControlRequest request = ReadRequest();
  const Asked before = asked;
  recorder::ServeControlFile();
  const int done = asked.dumps - before.dumps + asked.intervals - before.intervals;
  Require(done <= 1, "one request, one deed");
  if (done == 0) return;
  Require(request.magic == box::kControlMagic && request.sequence > 0, "only what is a request");
  const bool dumped = asked.dumps > before.dumps;
  Require(request.kind == static_cast<uint32_t>(dumped ? box::ControlKind::kDump
                                                       : box::ControlKind::kSetInterval),
          "what was asked for is done");
  Require(dumped || (asked.interval == request.argument && asked.interval <= uint64_t{1} << 40),
          "an interval is set that can be");
  box::ControlAnswer answer = {};
  Require(pread(control_fd, &answer, sizeof(answer), box::kAnswerOffset) == sizeof(answer) &&
              answer.sequence == request.sequence && answer.error == 0 &&
              answer.text_bytes <= sizeof(answer.text),
          "and answered");
  const Asked after = asked;
  recorder::ServeControlFile();
  Require(asked.dumps == after.dumps && asked.intervals == after.intervals, "once");
}

// The recorder opens the control file anew for each process, and leaves what it had to the end of the
// thread that had it: here its number is closed, which is the lowest one that is free now.
class Descriptor {
 public:
  Descriptor() : number_(dup(control_fd)) {
    close(number_);
    recorder::OpenControlFile();
  }
  ~Descriptor() { close(number_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

 private:
  int number_;
};

void Write(std::string_view content, size_t at) {
  const size_t most = kFileBytes - std::min(at, kFileBytes);
  content = content.substr(0, most);
  Require(pwrite(control_fd, content.data(), content.size(), static_cast<off_t>(at)) ==
              static_cast<ssize_t>(content.size()),
          "the control file can be written");
}

}  // namespace

void WhileTheClientPauses() {
  if (serve) ServeOnce();
  // A word of the answer, or its start, changes under the client's eyes.
  if (!intruder.empty()) Write(intruder, box::kAnswerOffset);
}

void FuzzOne(std::string_view bytes) {
  static FileTree tree;
  static const std::string box_path = tree.root() + "/a.box";
  static const bool made = [] {
    tree.Write("a.box", std::string(8192, 0));
    tree.Write("a.ctl", "");
    recorder::recorder.control_path.Add(tree.root()).Add("/a.ctl");
    control_fd = open(recorder::recorder.control_path.c_str(), O_RDWR | O_CLOEXEC);
    // The recorder opens it once it has a box.
    const int error = recorder::recorder.mapping.Create(
        {.path = nullptr, .file_bytes = box::kMinimumFileBytes, .mode = 0600});
    recorder::recorder.phase.store(recorder::Phase::kRecording);
    return control_fd >= 0 && error == 0;
  }();
  Require(made, "the control file is there");
  // Another process as it were: it has answered nothing yet.
  ++recorder::own_process_mark.process;
  const Descriptor descriptor;

  Input input(bytes);
  const auto flags = input.Take<uint8_t>();
  const box::ControlKind kind =
      (flags & 1) != 0 ? box::ControlKind::kDump : static_cast<box::ControlKind>(flags >> 5);
  serve = (flags & 2) != 0;
  const std::string_view written_meanwhile = input.Bytes(input.Take<uint8_t>());
  intruder = (flags & 4) != 0 ? written_meanwhile : std::string_view();
  const std::string_view request = input.Bytes(sizeof(box::ControlRequest));
  Require(ftruncate(control_fd, 0) == 0, "the control file can be emptied");
  if ((flags & 8) == 0) {
    Require(ftruncate(control_fd, kFileBytes) == 0, "or be whole");
    Write(request, box::kRequestOffset);
    Write(input.Rest(), box::kAnswerOffset);
  } else {
    Write(request, box::kRequestOffset);
  }

  ServeOnce();
  const box::ControlRequest before = ReadRequest();
  // With a recorder that answers there is no need of time; without, there is none to lose.
  const int64_t patience = serve && intruder.empty() ? 5'000'000'000 : 0;
  const auto answer =
      control::Ask(box_path, 0, {.kind = kind, .argument = input.Take<uint64_t>()}, patience);
  if (answer.ok()) {
    Require(answer->size() <= sizeof(box::ControlAnswer::text), "no more than an answer holds");
  } else {
    Require(std::string(answer.status().message()).starts_with(tree.root()),
            "an error names the file");
  }
  if (patience > 0 && before.sequence < UINT64_MAX) {
    Require(!absl::IsDeadlineExceeded(answer.status()), "a recorder that lives answers");
  }
}

}  // namespace heapflare::fuzz

// The client's pause, in place of libc's: here the other side acts, and no time is lost.
extern "C" int nanosleep(const timespec* /*duration*/, timespec* /*left*/) {
  heapflare::fuzz::WhileTheClientPauses();
  return 0;
}
