#include "lib/profile/json.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_format.h"
#include "lib/box/totals.h"
#include "lib/profile/frames.h"
#include "lib/profile/text_size.h"
#include "lib/target/human.h"

namespace heapflare::profile {
namespace {

using Json = nlohmann::ordered_json;

std::string Hex(uint64_t value) { return absl::StrFormat("0x%x", value); }

Json FrameAt(const Frames& frames, const Location& location) {
  Json frame;
  if (const Mapping* mapping = frames.mapping(location)) {
    frame["module"] = frames.String(mapping->filename());
    frame["build_id"] = frames.String(mapping->build_id());
  }
  frame["address"] = Hex(location.address());
  frame["offset"] = Hex(frames.Offset(location));
  return frame;
}

void AddFrames(const Frames& frames, const Location& location, Json* list) {
  const Json place = FrameAt(frames, location);
  if (location.line_size() == 0) list->push_back(place);
  for (const Line& line : location.line()) {
    const Function& function = frames.function(line.function_id());
    Json frame = place;
    frame["function"] = frames.String(function.name());
    if (function.filename() != 0) frame["file"] = frames.String(function.filename());
    if (line.line() != 0) frame["line"] = line.line();
    list->push_back(std::move(frame));
  }
}

Json Labels(const Frames& frames, const Sample& sample) {
  Json labels = Json::object();
  for (const Label& label : sample.label()) {
    const std::string& key = frames.String(label.key());
    if (label.str() != 0) {
      labels[key] = frames.String(label.str());
    } else {
      labels[key] = label.num();
    }
  }
  return labels;
}

Json Head(const Profile& profile, const Frames& frames, const Json& process) {
  Json head = {{"format", "heapflare-profile-1"}};
  if (!process.is_null()) head["process"] = process;
  head["time"] = target::IsoTime(static_cast<uint64_t>(std::max<int64_t>(profile.time_nanos(), 0)));
  head["period"] = profile.period();
  head["sample_types"] = Json::array();
  for (const ValueType& type : profile.sample_type()) {
    head["sample_types"].push_back(
        {{"type", frames.String(type.type())}, {"unit", frames.String(type.unit())}});
  }
  const ValueType& first = profile.sample_type(FindSampleType(profile, ""));
  head["default_sample_type"] = frames.String(first.type());
  head["comments"] = Json::array();
  for (const int64_t comment : profile.comment()) {
    head["comments"].push_back(frames.String(comment));
  }
  head["modules"] = Json::array();
  for (const Mapping& mapping : profile.mapping()) {
    head["modules"].push_back({{"path", frames.String(mapping.filename())},
                               {"build_id", frames.String(mapping.build_id())},
                               {"start", Hex(mapping.memory_start())},
                               {"limit", Hex(mapping.memory_limit())},
                               {"offset", Hex(mapping.file_offset())}});
  }
  return head;
}

}  // namespace

Json JsonProcess(const box::Header& header, const std::string& state) {
  const box::Losses& losses = header.losses;
  const box::Totals totals = box::SumTallies(header);
  return {{"program", std::string(header.program, strnlen(header.program, box::kNameBytes))},
          {"pid", header.pid},
          {"uid", header.uid},
          {"state", state},
          {"started", target::IsoTime(header.start_utc)},
          {"last_seen", target::IsoTime(header.heartbeat_utc)},
          {"sample_interval", header.interval},
          {"configured_interval", header.configured_interval},
          {"live_bytes", box::WholeBytes(totals.live_bytes())},
          {"samples_taken", totals.samples_taken},
          {"samples_live", totals.samples_live()},
          {"dumps", header.dumps},
          {"losses",
           {{"samples", losses.samples},
            {"sample_bytes", box::WholeBytes(losses.sample_bytes)},
            {"folded_stacks", losses.folded_stacks},
            {"truncated_stacks", losses.truncated_stacks},
            {"unwind_failures", losses.unwind_failures},
            {"thinnings", losses.thinnings},
            {"missed_frees", losses.missed_frees}}}};
}

std::string ToText(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

absl::Status WriteJson(const Profile& profile, const Json& process, pprof::Sink* sink) {
  const Frames frames(profile);
  constexpr uint64_t kMostText = uint64_t{1} << 36;
  if (absl::Status status = CheckTextSize(profile, frames, kMostText); !status.ok()) {
    return status;
  }
  const auto failed = [] { return absl::InternalError("cannot be written"); };
  const auto put = [sink](const std::string& text) {
    return sink->Write(text.data(), text.size());
  };
  // The samples go into the head, before its closing brace.
  std::string head = ToText(Head(profile, frames, process));
  head.pop_back();
  if (!put(head + ",\"samples\":[")) return failed();
  bool first = true;
  for (const Sample& sample : profile.sample()) {
    const auto& values = sample.value();
    if (std::all_of(values.begin(), values.end(), [](int64_t value) { return value == 0; }))
      continue;
    Json one = {{"values", Json::array()}, {"labels", Labels(frames, sample)}};
    for (const int64_t value : values) one["values"].push_back(value);
    Json& list = one["frames"] = Json::array();
    for (const uint64_t id : sample.location_id()) AddFrames(frames, frames.location(id), &list);
    if (!put((first ? "\n" : ",\n") + ToText(one))) return failed();
    first = false;
  }
  return put("\n]}\n") ? absl::OkStatus() : failed();
}

}  // namespace heapflare::profile
