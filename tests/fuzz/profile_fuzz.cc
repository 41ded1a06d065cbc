// lib/profile: a profile file, compressed or not, from anywhere; and what is made of it: folded
// stacks, JSON, symbols.
#include <sys/stat.h>

#include "lib/profile/folded.h"
#include "lib/profile/frames.h"
#include "lib/profile/gunzip.h"
#include "lib/profile/json.h"
#include "lib/profile/load.h"
#include "lib/profile/validate.h"
#include "lib/profile/wire_check.h"
#include "lib/symbolize/symbolize.h"
#include "tests/fuzz/file_tree.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/string_sink.h"

namespace heapflare::fuzz {
namespace {

using profile::Profile;

void Folded(const Profile& profile) {
  const int type = profile::FindSampleType(profile, "");
  Require(type >= 0 && type < profile.sample_type_size(), "there is a default sample type");
  StringSink sink;
  if (!profile::WriteFolded(profile, type, &sink).ok()) return;
  uint64_t expected = 0;
  for (const auto& sample : profile.sample()) expected += static_cast<uint64_t>(sample.value(type));
  uint64_t sum = 0;
  std::string before;
  std::string_view rest = sink.text();
  Require(rest.empty() || rest.back() == '\n', "lines end");
  while (!rest.empty()) {
    const std::string line(rest.substr(0, rest.find('\n')));
    rest.remove_prefix(line.size() + 1);
    for (const char c : line) {
      Require(static_cast<uint8_t>(c) >= 0x20 && c != 0x7f, "a line is text");
    }
    const size_t space = line.rfind(' ');
    Require(space != std::string::npos && space > 0, "a stack and a number");
    sum += static_cast<uint64_t>(strtoll(line.c_str() + space + 1, nullptr, 10));
    const std::string stack = line.substr(0, space);
    Require(before.empty() || before < stack, "lines are sorted and each stack is there once");
    before = stack;
  }
  Require(sum == expected, "nothing is lost");
}

void AsJson(const Profile& profile) {
  // It takes a hundred times as long as all the rest, by the frame.
  constexpr int kMostFrames = 100;
  int frames = 0;
  for (const auto& sample : profile.sample()) frames += sample.location_id_size();
  if (frames > kMostFrames) return;
  StringSink sink;
  if (!profile::WriteJson(profile, nullptr, &sink).ok()) return;
  if (sink.text().size() > 256 << 10) return;
  const auto json = nlohmann::json::parse(sink.text(), nullptr, /*allow_exceptions=*/false);
  Require(!json.is_discarded(), "it is JSON");
  Require(json["modules"].size() == static_cast<size_t>(profile.mapping_size()),
          "with all modules");
  size_t samples = 0;
  for (const auto& sample : profile.sample()) {
    samples += std::any_of(sample.value().begin(), sample.value().end(),
                           [](int64_t value) { return value != 0; })
                   ? 1
                   : 0;
  }
  Require(json["samples"].size() == samples, "and all samples that have a value");
}

// Files that a hostile profile names are not to be opened here: all names lead to a pipe, which would
// hold up who opens it carelessly.
void Symbolized(Profile profile) {
  static const FileTree tree;
  static const std::string pipe = tree.root() + "/pipe";
  static const bool made = mkfifo(pipe.c_str(), 0600) == 0;
  Require(made, "a pipe can be made");
  for (auto& mapping : *profile.mutable_mapping()) {
    if (mapping.filename() != 0) {
      *profile.mutable_string_table(static_cast<int>(mapping.filename())) = pipe;
    }
  }
  symbolize::Symbolize(&profile);
  const absl::Status status = profile::Validate(profile);
  Require(status.ok(), std::string(status.message()).c_str());
  for (const auto& location : profile.location()) {
    Require(location.line_size() > 0, "each location has a line");
  }
}

}  // namespace

void FuzzOne(std::string_view bytes) {
  const Alone alone(bytes);
  std::string_view plain = alone.view();
  absl::StatusOr<std::string> unpacked;
  if (profile::IsGzip(plain)) {
    constexpr size_t kMost = 1 << 20;
    unpacked = profile::Gunzip(plain, kMost);
    if (!unpacked.ok()) return;
    Require(unpacked->size() <= kMost, "no more comes out than is allowed");
    plain = *unpacked;
  }
  const auto profile = profile::Parse(plain);
  if (!profile.ok()) {
    Require(!profile.status().message().empty(), "a refusal has a reason");
    return;
  }
  Require(profile::CheckWire(plain).ok(), "what is parsed was counted before");
  const std::string written = profile->SerializeAsString();
  const auto again = profile::Parse(written);
  Require(again.ok() && again->SerializeAsString() == written, "it comes back");
  Folded(*profile);
  AsJson(*profile);
  Symbolized(*profile);
}

}  // namespace heapflare::fuzz
