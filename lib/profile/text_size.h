// How much text a profile becomes when every stack is written out.
//
// A few bytes of a file can name one long string a million times. So what writes stacks as text
// asks first, and refuses what no real profile comes near.
#pragma once

#include "absl/status/status.h"
#include "lib/profile/frames.h"
#include "lib/profile/profile.pb.h"

namespace heapflare::profile {

inline constexpr uint64_t kMaximumStackText = 64 << 20;

// An error if one stack needs more than kMaximumStackText bytes, or all together more than `most`.
absl::Status CheckTextSize(const Profile& profile, const Frames& frames, uint64_t most);

}  // namespace heapflare::profile
