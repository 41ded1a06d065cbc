// Box → profile.proto, streamed: the one encoder, used by the recorder for its dumps and by the
// command for everything.
//
// What is written (https://github.com/google/pprof/blob/main/proto/profile.proto says how):
//   - sample types alloc_objects/count, alloc_space/bytes, inuse_objects/count, inuse_space/bytes;
//   unsampled values
//   - one sample per stack, leaf first, with the label bytes = mean object size; stacks without
//   counts are left out
//   - mapping i = module i, so mapping 1 is the main program; a last one, [unknown], holds what no
//   module holds
//   - location i = location i of the box; its address is the return address - 1, which lies in the
//   call
//   - stacks that are not whole end in a frame that says so: [truncated ...], [not unwound ...],
//   [other stacks ...]
//   - comments in plain words: which process, how good the numbers are, what was lost
// Ids count from 1 without gaps. The modules of libraries that were unloaded and whose addresses
// were used again are moved to addresses of their own (module number << 48), so that no two
// locations share one.
//
// One pass over the stacks; memory is what one message needs, on the stack (about 9 KiB), whatever
// the box holds.
#pragma once

#include <cstdint>

#include "lib/base/text.h"
#include "lib/box/reader.h"
#include "lib/pprof/live_error.h"
#include "lib/pprof/sink.h"

namespace heapflare::pprof {

// A request that is larger than the headroom: shown as one more sample, labelled request = "straw".
struct Straw {
  uint32_t stack;
  uint64_t bytes;  // 0: there is none
};

struct EncodeOptions {
  uint64_t time_utc = 0;           // ns; when the profile was taken
  const char* reason = nullptr;    // "rung-90pct"; nullptr: none
  uint64_t usage = box::kUnknown;  // of the cgroup at that time, for a comment; bytes
  uint64_t limit = box::kUnknown;
  Straw straw = {0, 0};
};

// Writes the profile, not compressed. False when the sink failed.
bool Encode(const box::Reader& box, const EncodeOptions& options, Sink* sink);

// What the profile says about itself: number `index` of the comments, false past the last one. How
// many there are does not depend on `error`.
bool Comment(const box::Reader& box, const EncodeOptions& options, const LiveError& error,
             int index, base::TextWriter* text);

}  // namespace heapflare::pprof
