#include "lib/profile/folded.h"

#include <map>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_format.h"
#include "lib/profile/frames.h"
#include "lib/profile/text_size.h"

namespace heapflare::profile {
namespace {

void AppendName(const std::string& name, std::string* line) {
  if (!line->empty()) *line += ';';
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == ';' || byte < 0x20 || byte == 0x7f) {
      absl::StrAppendFormat(line, "\\x%02x", byte);
    } else {
      *line += c;
    }
  }
}

// The names at one location, from the outermost function to the innermost.
std::string NamesAt(const Frames& frames, const Location& location) {
  std::string names;
  for (int i = location.line_size() - 1; i >= 0; --i) {
    const std::string& name = frames.String(frames.function(location.line(i).function_id()).name());
    AppendName(name.empty() ? frames.PlaceName(location) : name, &names);
  }
  if (names.empty()) AppendName(frames.PlaceName(location), &names);
  return names;
}

}  // namespace

absl::Status WriteFolded(const Profile& profile, int type, pprof::Sink* sink) {
  const Frames frames(profile);
  constexpr uint64_t kMostInMemory = uint64_t{1} << 30;
  if (absl::Status status = CheckTextSize(profile, frames, kMostInMemory); !status.ok()) {
    return status;
  }
  absl::flat_hash_map<uint64_t, std::string> names;
  std::map<std::string, uint64_t> sums;
  for (const Sample& sample : profile.sample()) {
    const int64_t value = sample.value(type);
    if (value == 0) continue;
    std::string line;
    for (int i = sample.location_id_size() - 1; i >= 0; --i) {
      const uint64_t id = sample.location_id(i);
      std::string& known = names[id];
      if (known.empty()) known = NamesAt(frames, frames.location(id));
      if (!line.empty()) line += ';';
      line += known;
    }
    if (line.empty()) line = "[no stack]";
    // Modulo 2^64, as two's complement sums are; signed overflow would not be defined.
    sums[line] += static_cast<uint64_t>(value);
  }
  for (const auto& [stack, sum] : sums) {
    if (sum == 0) continue;
    const std::string line = absl::StrFormat("%s %d\n", stack, static_cast<int64_t>(sum));
    if (!sink->Write(line.data(), line.size())) {
      return absl::InternalError("cannot be written");
    }
  }
  return absl::OkStatus();
}

}  // namespace heapflare::profile
