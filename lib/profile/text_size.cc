#include "lib/profile/text_size.h"

#include "absl/strings/str_format.h"

namespace heapflare::profile {
namespace {

// Addresses, punctuation and field names around one frame.
constexpr uint64_t kAroundFrame = 128;

uint64_t SizeOf(const Frames& frames, const Location& location) {
  uint64_t place = kAroundFrame;
  if (const Mapping* mapping = frames.mapping(location)) {
    place += frames.String(mapping->filename()).size() + frames.String(mapping->build_id()).size();
  }
  uint64_t size = location.line_size() == 0 ? place : 0;
  for (const Line& line : location.line()) {
    const Function& function = frames.function(line.function_id());
    size +=
        place + frames.String(function.name()).size() + frames.String(function.filename()).size();
  }
  return size;
}

}  // namespace

absl::Status CheckTextSize(const Profile& profile, const Frames& frames, uint64_t most) {
  absl::flat_hash_map<uint64_t, uint64_t> sizes;
  for (const Location& location : profile.location()) {
    sizes[location.id()] = SizeOf(frames, location);
  }
  uint64_t total = 0;
  for (const Sample& sample : profile.sample()) {
    uint64_t size = 0;
    for (const uint64_t id : sample.location_id()) {
      size += sizes.at(id);
      if (size > kMaximumStackText) {
        return absl::ResourceExhaustedError(
            absl::StrFormat("a stack in it is longer than %d MiB", kMaximumStackText >> 20));
      }
    }
    for (const Label& label : sample.label()) {
      size += frames.String(label.key()).size() + frames.String(label.str()).size();
    }
    total += size;
    if (size > kMaximumStackText || total > most) {
      return absl::ResourceExhaustedError(absl::StrFormat(
          "its stacks written out need more than %d MiB; pprof format holds it", most >> 20));
    }
  }
  return absl::OkStatus();
}

}  // namespace heapflare::profile
