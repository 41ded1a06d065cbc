// Profile → folded stacks, the text that flame graph tools read: one line a stack,
// "main;Outer;Inner 4096".
//
// Root first; functions, inlined ones too, or MODULE!0xOFFSET where there are no symbols. Stacks
// that read the same are one line; lines are sorted; stacks without a value are left out. In names
// ';' and control characters become \xNN.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "lib/pprof/sink.h"
#include "lib/profile/profile.pb.h"

namespace heapflare::profile {

// `type` is an index of the profile's sample types. Internal: the sink failed.
absl::Status WriteFolded(const Profile& profile, int type, pprof::Sink* sink);

}  // namespace heapflare::profile
