#include "lib/profile/frames.h"

#include "absl/strings/str_format.h"
#include "lib/target/files.h"

namespace heapflare::profile {

Frames::Frames(const Profile& profile) : profile_(profile) {
  for (const Mapping& mapping : profile.mapping()) mappings_[mapping.id()] = &mapping;
  locations_.reserve(static_cast<size_t>(profile.location_size()));
  for (const Location& location : profile.location()) locations_[location.id()] = &location;
  for (const Function& function : profile.function()) functions_[function.id()] = &function;
}

const Mapping* Frames::mapping(const Location& location) const {
  const auto found = mappings_.find(location.mapping_id());
  return found == mappings_.end() ? nullptr : found->second;
}

uint64_t Frames::Offset(const Location& location) const {
  const Mapping* in = mapping(location);
  // Unsigned throughout: a hostile mapping gives a strange number, nothing worse.
  return in == nullptr ? location.address()
                       : location.address() - in->memory_start() + in->file_offset();
}

std::string Frames::PlaceName(const Location& location) const {
  const Mapping* in = mapping(location);
  const std::string file = in == nullptr ? "" : target::Basename(String(in->filename()));
  return absl::StrFormat("%s!%#x", file.empty() ? "[unknown]" : file, Offset(location));
}

int FindSampleType(const Profile& profile, const std::string& name) {
  const std::string& wanted =
      name.empty() ? profile.string_table(static_cast<int>(profile.default_sample_type())) : name;
  for (int i = 0; i < profile.sample_type_size(); ++i) {
    if (profile.string_table(static_cast<int>(profile.sample_type(i).type())) == wanted) return i;
  }
  return name.empty() ? profile.sample_type_size() - 1 : -1;
}

}  // namespace heapflare::profile
