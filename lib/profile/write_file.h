// A profile into a file.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "lib/profile/profile.pb.h"

namespace heapflare::profile {

// Compressed, as pprof wants it; the file appears when it is complete, and replaces what has its
// name. Errors say "PATH: what".
absl::Status WriteFile(const std::string& path, const Profile& profile);

}  // namespace heapflare::profile
