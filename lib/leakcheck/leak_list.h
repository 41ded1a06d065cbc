// What a leak check found, as the recorder hands it over (box/leak_list.h): read into a profile.
//
// Of the profile: sample types leaked_objects and leaked_space, and the label `evidence` with direct
// or indirect. The text is not trusted: what is not of the form is an error.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "lib/profile/profile.pb.h"

namespace heapflare::leakcheck {

struct LeakList {
  std::string program;
  uint64_t pid = 0;
  uint64_t start = 0;  // of the process, Unix seconds
  std::string directory;
  std::string suppressions;  // a file; empty: none
  profile::Profile profile;
};

// The index of the sample's values, and the value of its label.
inline constexpr int kObjects = 0;
inline constexpr int kBytes = 1;
bool IsDirect(const profile::Profile& profile, const profile::Sample& sample);

absl::StatusOr<LeakList> ReadList(int fd);
absl::StatusOr<LeakList> ParseList(std::string_view text);

// Writes the profile to PROGRAM.PID.START.leaks.pb.gz in its directory, or the next free name; returns
// the path.
absl::StatusOr<std::string> WriteProfile(const LeakList& list);

}  // namespace heapflare::leakcheck
