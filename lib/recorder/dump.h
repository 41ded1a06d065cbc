// Writes a profile of the box to a file: the in-process dump.
//
// Allocates nothing: the encoder streams through one buffer of fixed size that was touched at
// start. The file gets its name only when it is complete; a failure leaves nothing behind, nor does
// a kill where the file system has files without a name (O_TMPFILE). It is reported once for each
// errno, and is noted in the box. Runs on the recorder's own thread only.
#pragma once

#include <cstdint>
#include <string_view>

#include "lib/base/text.h"
#include "lib/box/format.h"
#include "lib/pprof/encoder.h"

namespace heapflare::recorder {

// Small, since hooks have one on their stack: whoever asks keeps the path until it is posted.
struct DumpRequest {
  base::Text<40> reason;  // "rung-90pct", "signal", ...: part of the file's name
  std::string_view path;  // empty: named by the rules, in HEAPFLARE_DIR
  uint64_t usage = box::kUnknown;
  uint64_t limit = box::kUnknown;
  pprof::Straw straw = {0, 0};
  uint32_t ramp_stop = 0;  // its number, if threads are stopped for it (ramp_stop.h)
};

struct DumpResult {
  int error = 0;    // errno value
  base::Path path;  // of the file
};

// Makes the pages of the buffers present, so that a dump near the limit needs none.
void TouchDumpBuffers();

void WriteDump(const DumpRequest& request, DumpResult* result);

// Forgets which dumps were written: in a forked child, whose files have other names.
void ForgetDumps();

}  // namespace heapflare::recorder
