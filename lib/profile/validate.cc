#include "lib/profile/validate.h"

#include <cstdint>
#include <initializer_list>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_format.h"

namespace heapflare::profile {
namespace {

using Ids = absl::flat_hash_set<uint64_t>;

absl::Status Damaged(const char* what, int index, const char* problem) {
  return absl::DataLossError(absl::StrFormat("damaged profile: %s %d %s", what, index, problem));
}

class Validator {
 public:
  explicit Validator(const Profile& profile) : profile_(profile) {}

  absl::Status Run() {
    if (profile_.string_table_size() == 0 || !profile_.string_table(0).empty()) {
      return absl::DataLossError("not a pprof profile: its string table does not begin with \"\"");
    }
    if (profile_.sample_type_size() == 0) {
      return absl::DataLossError("not a pprof profile: it has no sample types");
    }
    absl::Status status = Head();
    if (status.ok()) status = Mappings();
    if (status.ok()) status = Functions();
    if (status.ok()) status = Locations();
    if (status.ok()) status = Samples();
    return status;
  }

 private:
  bool AreStrings(std::initializer_list<int64_t> indexes) const {
    for (const int64_t index : indexes) {
      if (index < 0 || index >= profile_.string_table_size()) return false;
    }
    return true;
  }

  absl::Status Head() const {
    for (int i = 0; i < profile_.sample_type_size(); ++i) {
      const ValueType& type = profile_.sample_type(i);
      if (!AreStrings({type.type(), type.unit()})) {
        return Damaged("sample type", i, "has a name that is not there");
      }
    }
    for (int i = 0; i < profile_.comment_size(); ++i) {
      if (!AreStrings({profile_.comment(i)})) return Damaged("comment", i, "is not there");
    }
    const ValueType& period = profile_.period_type();
    if (!AreStrings({period.type(), period.unit(), profile_.drop_frames(), profile_.keep_frames(),
                     profile_.default_sample_type()})) {
      return absl::DataLossError("damaged profile: it names strings that are not there");
    }
    return absl::OkStatus();
  }

  absl::Status Mappings() {
    for (int i = 0; i < profile_.mapping_size(); ++i) {
      const Mapping& mapping = profile_.mapping(i);
      if (mapping.id() == 0 || !mappings_.insert(mapping.id()).second) {
        return Damaged("mapping", i, "has no id of its own");
      }
      if (!AreStrings({mapping.filename(), mapping.build_id()})) {
        return Damaged("mapping", i, "has a name that is not there");
      }
    }
    return absl::OkStatus();
  }

  absl::Status Functions() {
    for (int i = 0; i < profile_.function_size(); ++i) {
      const Function& function = profile_.function(i);
      if (function.id() == 0 || !functions_.insert(function.id()).second) {
        return Damaged("function", i, "has no id of its own");
      }
      if (!AreStrings({function.name(), function.system_name(), function.filename()})) {
        return Damaged("function", i, "has a name that is not there");
      }
    }
    return absl::OkStatus();
  }

  absl::Status Locations() {
    for (int i = 0; i < profile_.location_size(); ++i) {
      const Location& location = profile_.location(i);
      if (location.id() == 0 || !locations_.insert(location.id()).second) {
        return Damaged("location", i, "has no id of its own");
      }
      if (location.mapping_id() != 0 && !mappings_.contains(location.mapping_id())) {
        return Damaged("location", i, "is in a mapping that is not there");
      }
      for (const Line& line : location.line()) {
        if (!functions_.contains(line.function_id())) {
          return Damaged("location", i, "is in a function that is not there");
        }
      }
    }
    return absl::OkStatus();
  }

  absl::Status Samples() const {
    for (int i = 0; i < profile_.sample_size(); ++i) {
      const Sample& sample = profile_.sample(i);
      if (sample.value_size() != profile_.sample_type_size()) {
        return Damaged("sample", i, "has another number of values than there are types");
      }
      for (const uint64_t id : sample.location_id()) {
        if (!locations_.contains(id)) {
          return Damaged("sample", i, "has a location that is not there");
        }
      }
      for (const Label& label : sample.label()) {
        if (!AreStrings({label.key(), label.str(), label.num_unit()})) {
          return Damaged("sample", i, "has a label that is not there");
        }
      }
    }
    return absl::OkStatus();
  }

  const Profile& profile_;
  Ids mappings_;
  Ids functions_;
  Ids locations_;
};

}  // namespace

absl::Status Validate(const Profile& profile) { return Validator(profile).Run(); }

}  // namespace heapflare::profile
