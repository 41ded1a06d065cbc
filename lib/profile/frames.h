// A profile's locations as frames: what a stack is made of when people or tools read it.
#pragma once

#include <cstdint>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "lib/profile/profile.pb.h"

namespace heapflare::profile {

// Looks things up by id. The profile is one that Validate accepted, and outlives this.
class Frames {
 public:
  explicit Frames(const Profile& profile);

  const std::string& String(int64_t index) const {
    return profile_.string_table(static_cast<int>(index));
  }
  const Location& location(uint64_t id) const { return *locations_.at(id); }
  const Function& function(uint64_t id) const { return *functions_.at(id); }
  // nullptr: not known.
  const Mapping* mapping(const Location& location) const;

  // Where in its file the location lies: address - start + file offset. The address itself without
  // a mapping.
  uint64_t Offset(const Location& location) const;
  // What stands for a function that is not known: "libfoo.so!0x1a2b", by file name and offset.
  std::string PlaceName(const Location& location) const;

 private:
  const Profile& profile_;
  absl::flat_hash_map<uint64_t, const Mapping*> mappings_;
  absl::flat_hash_map<uint64_t, const Location*> locations_;
  absl::flat_hash_map<uint64_t, const Function*> functions_;
};

// The sample type of that name, as its index; -1 if there is none. An empty name is the profile's
// default, or its last one.
int FindSampleType(const Profile& profile, const std::string& name);

}  // namespace heapflare::profile
