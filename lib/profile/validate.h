// Whether a profile keeps the promises of load.h.
#pragma once

#include "absl/status/status.h"
#include "lib/profile/profile.pb.h"

namespace heapflare::profile {

// What is wrong names the message and its place in the file.
absl::Status Validate(const Profile& profile);

}  // namespace heapflare::profile
