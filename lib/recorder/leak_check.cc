#include "lib/recorder/leak_check.h"

#include <stdlib.h>

#include <atomic>
#include <cstring>

#include "lib/base/say.h"
#include "lib/base/syscall.h"
#include "lib/recorder/exit_frame.h"
#include "lib/recorder/inside.h"
#include "lib/recorder/leak_report.h"
#include "lib/recorder/leak_search.h"
#include "lib/recorder/next_allocator.h"
#include "lib/recorder/own_process.h"
#include "lib/recorder/recorder.h"

extern "C" int __cxa_atexit(void (*function)(void*), void* argument, void* module);

namespace heapflare::recorder {
namespace {

constinit std::atomic<bool> checking = false;

int Refuse(std::string_view why) {
  base::Text<256> line("no leak check: ");
  base::Say(line.Add(why).view());
  return -1;
}

void SayWhatWasNotSeen(const LeakResult& result) {
  base::Text<256> line;
  if (result.stop_error != 0) {
    line.Add("threads could not be stopped (errno ");
    line.AddNumber(static_cast<uint64_t>(result.stop_error));
    line.Add("): a block that only a register refers to counts as leaked");
  } else if (result.threads_unseen > 0) {
    line.AddNumber(result.threads_unseen)
        .Add(" threads did not stop, and their registers are unseen");
  } else {
    return;
  }
  base::Say(line.view());
}

// Their tables of blocks and caches cannot be told from the program's memory.
void SayWhoseMallocHides() {
  if (next.is_glibc) return;
  base::Say(
      "malloc is not glibc's: what it keeps about its blocks can hide leaks; for a check that "
      "finds "
      "all of them run the program with glibc's");
}

int Check(const ProgramFrame& frame) {
  const box::Header* const header = Header();
  if (header == nullptr) return 0;  // nothing was ever allocated
  const uint64_t lost = header->losses.samples;
  if (lost > 0) {
    base::Text<128> why;
    why.AddNumber(lost).Add(" blocks were not recorded (HEAPFLARE_BOX_SIZE)");
    return Refuse(why.view());
  }
  LeakResult result;
  SearchLeaks(frame, &result);
  if (result.error != 0) {
    base::Text<64> why("errno ");
    return Refuse(why.AddNumber(static_cast<uint64_t>(result.error)).view());
  }
  SayWhatWasNotSeen(result);
  SayWhoseMallocHides();
  if (recorder.settings.verbose) {
    base::Text<128> line("leak check: ");
    line.AddNumber(result.blocks).Add(" blocks are live, ").AddNumber(result.reached);
    base::Say(line.Add(" of them reached").view());
  }
  const bool any = result.all.direct_objects + result.all.indirect_objects > 0;
  const Verdict verdict = any ? ReportLeaks(result) : Verdict::kClean;
  base::Unmap(result.stacks, result.stack_bytes);
  return verdict == Verdict::kLeaks ? 1 : 0;
}

// One at a time; another one meanwhile is refused.
int CheckAlone(const ProgramFrame& frame) {
  if (checking.exchange(true)) return Refuse("another one is under way");
  const int found = Check(frame);
  checking.store(false);
  return found;
}

void AtExit(void* /*argument*/) {
  if (!IsOwnProcessId()) return;
  int found = 0;
  {
    const Inside inside;
    found = CheckAlone(FindCallerOfExit());
  }
  Close();
  if (found == 1 && recorder.settings.leak_exit_code != 0) {
    exit(static_cast<int>(recorder.settings.leak_exit_code));
  }
}

}  // namespace

void RegisterLeakCheck() {
  // With no module, so that no dlclose runs it.
  __cxa_atexit(AtExit, nullptr, nullptr);
}

int CheckLeaksNow(const void* return_address) {
  if (!IsOwnProcessId()) return Refuse("this is a copy of the process");
  const Inside inside;
  return CheckAlone(FindFrameAt(reinterpret_cast<uint64_t>(return_address)));
}

}  // namespace heapflare::recorder
