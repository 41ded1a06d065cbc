#include "lib/recorder/control_server.h"

#include <errno.h>

#include <algorithm>
#include <cstring>

#include "lib/base/syscall.h"
#include "lib/box/control.h"
#include "lib/recorder/dump.h"
#include "lib/recorder/own_process.h"
#include "lib/recorder/reach.h"
#include "lib/recorder/recorder.h"

namespace heapflare::recorder {
namespace {

constexpr uint64_t kLargestInterval = uint64_t{1} << 40;

constinit uint64_t answered = 0;
constinit int control = -1;
constinit int32_t opened_for = 0;  // process: a forked child has a control file of its own
constinit box::ControlAnswer answer = {};
constinit DumpResult result = {};

// The request that a pass under way answers at its end; 0: none.
constinit uint64_t awaits_reach = 0;

void Answer(uint64_t sequence) {
  // The text first, then the word that makes it an answer.
  answer.sequence = 0;
  base::PWrite(control, &answer, sizeof(answer), box::kAnswerOffset);
  answer.sequence = sequence;
  base::PWrite(control, &answer.sequence, sizeof(answer.sequence), box::kAnswerOffset);
}

// False: the answer comes later.
bool ServeReach(const box::ControlRequest& request) {
  const auto passes = static_cast<uint32_t>(request.argument);
  const auto flags = static_cast<uint32_t>(request.argument >> 32);
  if (passes > box::kMostPasses) {
    answer.error = EINVAL;
  } else if (!StartReach(passes == 0 ? box::kReachPasses : passes, flags)) {
    answer.error = EBUSY;
  } else {
    awaits_reach = request.sequence;
    return false;
  }
  return true;
}

bool Serve(const box::ControlRequest& request) {
  answer.error = 0;
  answer.text_bytes = 0;
  switch (static_cast<box::ControlKind>(request.kind)) {
    case box::ControlKind::kDump: {
      DumpRequest dump;
      dump.reason.Add("request");
      result = {};
      WriteDump(dump, &result);
      answer.error = result.error;
      answer.text_bytes = static_cast<uint32_t>(std::min(result.path.size(), sizeof(answer.text)));
      memcpy(answer.text, result.path.c_str(), answer.text_bytes);
      return true;
    }
    case box::ControlKind::kSetInterval:
      if (request.argument > kLargestInterval) {
        answer.error = EINVAL;
      } else if (recorder.settings.leak_check) {
        answer.error = EBUSY;
      } else {
        SetInterval(request.argument);
      }
      return true;
    case box::ControlKind::kReach:
      return ServeReach(request);
    case box::ControlKind::kNone:
      break;
  }
  answer.error = ENOSYS;
  return true;
}

// Who asked for the pass may have given up, and somebody else be served since.
void AnswerReach() {
  base::Text<256> text;
  if (!AdvanceReach(&text) || awaits_reach != answered || control < 0) return;
  answer.error = 0;
  answer.text_bytes = static_cast<uint32_t>(text.size());
  memcpy(answer.text, text.c_str(), text.size());
  Answer(awaits_reach);
}

}  // namespace

void OpenControlFile() {
  if (Header() == nullptr) return;
  const int32_t process = OwnProcessId();
  if (opened_for == process) return;
  opened_for = process;
  answered = 0;
  // What the number meant in the parent is in the table of the parent's thread.
  control = -1;
  if (recorder.control_path.size() == 0) return;
  control = base::Open(recorder.control_path.c_str(), O_RDWR | O_NOFOLLOW);
  base::FileStatus status = {};
  if (control < 0 || (base::Status(control, &status) == 0 && S_ISREG(status.mode))) return;
  base::Close(control);
  control = -1;
}

void ServeControlFile() {
  OpenControlFile();
  AnswerReach();
  box::ControlRequest request = {};
  if (control < 0 ||
      base::PRead(control, &request, sizeof(request), box::kRequestOffset) != sizeof(request) ||
      request.magic != box::kControlMagic || request.sequence <= answered) {
    return;
  }
  answered = request.sequence;
  if (Serve(request)) Answer(request.sequence);
}

}  // namespace heapflare::recorder
