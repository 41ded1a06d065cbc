#include "tests/fuzz/recorder_stub.h"

#include "lib/recorder/dump.h"
#include "lib/recorder/reach.h"
#include "lib/recorder/recorder.h"

namespace heapflare {
namespace fuzz {
Asked asked;
}  // namespace fuzz

namespace recorder {

constinit Recorder recorder = {};

void WriteDump(const DumpRequest& request, DumpResult* result) {
  ++fuzz::asked.dumps;
  result->path.Add("/dumps/a.0001.").Add(request.reason.view()).Add(".pb.gz");
}

void SetInterval(uint64_t bytes) {
  ++fuzz::asked.intervals;
  fuzz::asked.interval = bytes;
}

// A pass that takes until it is asked for.
namespace {
bool searching = false;
}  // namespace

bool StartReach(uint32_t /*passes_needed*/, uint32_t /*flags*/) {
  if (searching) return false;
  searching = true;
  return true;
}

bool AdvanceReach(base::TextWriter* text) {
  if (!searching) return false;
  searching = false;
  text->Add("refused");
  return true;
}

}  // namespace recorder
}  // namespace heapflare
