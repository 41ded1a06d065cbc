#include "lib/leak/suspect_profile.h"

#include <cmath>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "lib/profile/export.h"
#include "lib/profile/frames.h"
#include "lib/profile/load.h"

namespace heapflare::leak {
namespace {

// Takes samples out of the profile of the whole box, with what they refer to.
class Extract {
 public:
  Extract(const box::Reader& box, const profile::Profile& whole) : whole_(whole), frames_(whole) {
    // The encoder writes one sample for each stack that has counts.
    box::StackView stack = {};
    int sample = 0;
    for (uint64_t i = 0; i < box.stack_count() && sample < whole.sample_size(); ++i) {
      if (!box.stack(i, &stack) || stack.allocated_objects == 0) continue;
      samples_[static_cast<uint32_t>(i)] = sample++;
    }
    out_ = whole;
    out_.clear_sample();
    out_.clear_location();
    out_.clear_sample_type();
    leaked_space_ = AddType("leaked_objects", "count", "leaked_space", "bytes");
    out_.set_default_sample_type(leaked_space_);
    evidence_ = AddString("evidence");
  }

  int64_t AddString(const std::string& text) {
    out_.add_string_table(text);
    return out_.string_table_size() - 1;
  }

  void Add(const Holding& holding, int64_t evidence) {
    const auto found = samples_.find(holding.stack);
    profile::Sample* const sample = out_.add_sample();
    if (found != samples_.end()) {
      const profile::Sample& from = whole_.sample(found->second);
      for (const uint64_t id : from.location_id()) sample->add_location_id(Location(id));
      *sample->mutable_label() = from.label();
    }
    sample->add_value(std::llround(std::min(holding.objects, 9e18)));
    sample->add_value(std::llround(std::min(holding.bytes, 9e18)));
    profile::Label* const label = sample->add_label();
    label->set_key(evidence_);
    label->set_str(evidence);
  }

  profile::Profile Take() { return std::move(out_); }

 private:
  int64_t AddType(const char* objects, const char* count, const char* space, const char* bytes) {
    profile::ValueType* type = out_.add_sample_type();
    type->set_type(AddString(objects));
    type->set_unit(AddString(count));
    type = out_.add_sample_type();
    const int64_t name = AddString(space);
    type->set_type(name);
    type->set_unit(AddString(bytes));
    return name;
  }

  // Its number in the new profile, where numbers have no gaps.
  uint64_t Location(uint64_t id) {
    const auto [entry, is_new] = locations_.emplace(id, locations_.size() + 1);
    if (is_new) {
      profile::Location* const location = out_.add_location();
      *location = frames_.location(id);
      location->set_id(entry->second);
    }
    return entry->second;
  }

  const profile::Profile& whole_;
  const profile::Frames frames_;
  profile::Profile out_;
  int64_t leaked_space_ = 0;
  int64_t evidence_ = 0;
  absl::flat_hash_map<uint32_t, int> samples_;         // by stack
  absl::flat_hash_map<uint64_t, uint64_t> locations_;  // new ids by old ones
};

}  // namespace

absl::StatusOr<profile::Profile> MakeProfile(const target::BoxFile& box, target::Life life,
                                             const Findings& findings) {
  const auto whole = profile::FromBox(box.reader(), profile::DescribeBox(box, life));
  if (!whole.ok()) {
    return absl::Status(whole.status().code(),
                        box.path() + ": " + std::string(whole.status().message()));
  }
  Extract extract(box.reader(), *whole);
  if (!findings.growing.empty()) {
    const int64_t growth = extract.AddString("growth");
    for (const GrowthSuspect& suspect : findings.growing) extract.Add(suspect.holding, growth);
  }
  if (!findings.unreachable.empty()) {
    const int64_t unreachable = extract.AddString("unreachable");
    for (const UnreachableSuspect& suspect : findings.unreachable) {
      extract.Add(suspect.holding, unreachable);
    }
  }
  return extract.Take();
}

}  // namespace heapflare::leak
