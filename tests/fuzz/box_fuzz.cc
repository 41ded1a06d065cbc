// Everything that reads a box: lib/box/reader, lib/pprof (encoder, legacy text, comments, gzip),
// lib/profile's export, lib/target's loading and what `heapflare ls` shows of it. Inputs: box_patch.h.
#include <cmath>
#include <optional>

#include "lib/box/reader.h"
#include "lib/leak/findings.h"
#include "lib/leak/report.h"
#include "lib/leak/suspect_profile.h"
#include "lib/pprof/encoder.h"
#include "lib/pprof/gzip.h"
#include "lib/pprof/legacy_text.h"
#include "lib/profile/export.h"
#include "lib/profile/folded.h"
#include "lib/profile/gunzip.h"
#include "lib/profile/json.h"
#include "lib/profile/load.h"
#include "lib/profile/validate.h"
#include "lib/target/box_file.h"
#include "lib/target/human.h"
#include "lib/target/process.h"
#include "tests/fuzz/box_patch.h"
#include "tests/fuzz/string_sink.h"

namespace heapflare::fuzz {
namespace {

using box::Reader;
using profile::Profile;

// What is to be done besides reading and encoding; bits of the input's first byte.
enum Also : uint8_t { kStraw = 0x10, kGzip = 0x20, kExport = 0x40, kFromFile = 0x80 };

bool IsText(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<uint8_t>(c) >= 0x20 && c != 0x7f; });
}

// What a proto3 string must be; protobuf's lite runtime does not look.
bool IsUtf8(const std::string& text) {
  try {
    return !nlohmann::json(text).dump().empty();
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

// The records that a view points to were written, and lie in the file. A sanitizer would not see that
// they lie behind what was written, or in the next region.
void InRegion(const Reader& reader, std::string_view box, box::RegionId id, const void* from,
              uint64_t records) {
  if (records == 0) return;
  const box::Region& region = reader.header().regions[id];
  const auto at = static_cast<uint64_t>(static_cast<const char*>(from) - box.data());
  const uint64_t bytes = records * region.record_bytes;
  Require(at >= region.offset && at + bytes <= box.size() &&
              at + bytes <=
                  region.offset + std::min(region.used, region.capacity) * region.record_bytes,
          "nothing is read but what was written");
}

struct Contents {
  uint64_t stacks = 0;  // with counts
  uint64_t live_bytes = 0;
};

Contents ReadEverything(const Reader& reader, std::string_view box) {
  Contents contents;
  uint64_t sum = 0;
  box::ModuleView module = {};
  for (uint64_t i = 0; i < reader.module_count(); ++i) {
    if (!reader.module(i, &module)) continue;
    Require(module.start < module.limit, "a module has a place");
    InRegion(reader, box, box::kStrings, module.path.data(), module.path.size());
    for (const char c : module.path) sum += static_cast<uint8_t>(c);
    for (uint32_t k = 0; k < module.build_id_bytes; ++k) sum += module.build_id[k];
  }
  box::StackView stack = {};
  for (uint64_t i = 0; i < reader.stack_count(); ++i) {
    if (!reader.stack(i, &stack)) continue;
    InRegion(reader, box, box::kFrames, stack.frames, stack.depth);
    for (uint32_t k = 0; k < stack.depth; ++k) sum += stack.frames[k];
    Require(
        stack.live_objects <= stack.allocated_objects && stack.live_bytes <= stack.allocated_bytes,
        "what lives was allocated");
    if (stack.allocated_objects == 0) continue;
    ++contents.stacks;
    contents.live_bytes += box::WholeBytes(stack.live_bytes);
  }
  box::Sample sample = {};
  for (uint64_t i = 0; i < reader.sample_slots(); ++i) {
    if (reader.sample(i, &sample)) Require(sample.address > box::kSampleClaimed, "a real address");
  }
  box::GrowthColumn columns[box::kGrowthColumns] = {};
  const uint32_t looks = reader.growth_columns(columns);
  for (uint32_t i = 0; i < looks; ++i) {
    Require(columns[i].time_mono != 0 && columns[i].number < box::kGrowthColumns,
            "a look has a time and a place");
    Require(i == 0 || columns[i - 1].time_mono <= columns[i].time_mono, "looks are in order");
    for (uint64_t k = 0; k < reader.stack_count(); ++k) sum += reader.growth(k, columns[i].number);
  }
  Require(reader.growth(~uint64_t{0}, 0) == 0 && reader.growth(0, box::kGrowthColumns) == 0,
          "what is not there is nothing");
  // Rings may claim to be as long as the largest box; the ends are where something can be.
  const auto walk = [&sum](Reader::Range range, auto read) {
    Require(range.first <= range.end, "a ring ends after it begins");
    for (uint64_t i = range.end; i > range.first && range.end - i < 100; --i) sum += read(i - 1);
    for (uint64_t i = range.first; i < range.end && i - range.first < 100; ++i) sum += read(i);
  };
  box::TimelinePoint point = {};
  box::Event event = {};
  walk(reader.history(), [&](uint64_t i) { return reader.history(i, &point); });
  walk(reader.recent(), [&](uint64_t i) { return reader.recent(i, &point); });
  walk(reader.events(), [&](uint64_t i) { return reader.event(i, &event); });
  Require(reader.program().size() <= box::kNameBytes, "a name of a length that can be");
  // So that the reading is not optimised away.
  volatile uint64_t keep = sum;
  (void)keep;
  return contents;
}

void CheckLocations(const Profile& profile) {
  for (int i = 0; i < profile.mapping_size(); ++i) {
    Require(profile.mapping(i).id() == static_cast<uint64_t>(i) + 1, "mappings are numbered");
    Require(profile.mapping(i).memory_start() < profile.mapping(i).memory_limit(),
            "a mapping has a place");
  }
  for (int i = 0; i < profile.location_size(); ++i) {
    const auto& location = profile.location(i);
    Require(location.id() == static_cast<uint64_t>(i) + 1, "locations are numbered");
    const auto& mapping = profile.mapping(static_cast<int>(location.mapping_id()) - 1);
    Require(
        location.address() >= mapping.memory_start() && location.address() < mapping.memory_limit(),
        "an address lies in its mapping");
  }
}

// The profile of an accepted box is one that lib/profile accepts, with all that is in the box.
void Encoded(const Reader& reader, const pprof::EncodeOptions& options, const Contents& contents,
             uint8_t also) {
  StringSink sink;
  Require(pprof::Encode(reader, options, &sink), "a box that opens can be encoded");
  const auto profile = profile::Parse(sink.text());
  Require(profile.ok(), std::string(profile.status().message()).c_str());
  Require(profile->sample_type_size() == 4 && profile->period() >= 0 && profile->time_nanos() >= 0,
          "numbers are what they are called");
  const bool straw = options.straw.bytes > 0;
  const auto samples = static_cast<uint64_t>(profile->sample_size());
  Require(samples == contents.stacks || (straw && samples == contents.stacks + 1),
          "one sample a stack");
  uint64_t live = 0;
  for (const auto& sample : profile->sample()) {
    for (const int64_t value : sample.value()) Require(value >= 0, "nothing is negative");
    Require(sample.value(2) <= sample.value(0) && sample.value(3) <= sample.value(1),
            "what is in use was allocated");
    live += static_cast<uint64_t>(sample.value(3));
  }
  Require(straw || live == contents.live_bytes, "the profile has all bytes of the box");
  CheckLocations(*profile);
  for (const std::string& text : profile->string_table()) Require(IsUtf8(text), "text is UTF-8");
  for (const int64_t comment : profile->comment()) {
    const std::string& text = profile->string_table(static_cast<int>(comment));
    Require(!text.empty() && IsText(text), "comments are lines of text");
  }

  if ((also & kGzip) != 0) {
    static pprof::Gzip gzip;
    StringSink compressed;
    Require(gzip.Begin(&compressed) && gzip.Write(sink.text().data(), sink.text().size()) &&
                gzip.Finish(),
            "it can be compressed");
    const auto plain = profile::Gunzip(compressed.text(), profile::kMaximumProfileBytes);
    Require(plain.ok() && *plain == sink.text(), "and comes back");
  }
  // JSON takes a hundred times as long as all the rest, by the frame.
  constexpr int kMostFrames = 60;
  int frames = 0;
  for (const auto& sample : profile->sample()) frames += sample.location_id_size();
  if ((also & kExport) != 0 && frames <= kMostFrames) {
    StringSink text;
    Require(profile::WriteFolded(*profile, 3, &text).ok(), "it can be folded");
    StringSink json;
    Require(profile::WriteJson(*profile, profile::JsonProcess(reader.header(), "dead"), &json).ok(),
            "and be JSON");
    Require(nlohmann::json::accept(json.text()), "that others can read");
  }
}

void LegacyText(const Reader& reader, const Contents& contents) {
  StringSink sink;
  Require(pprof::EncodeLegacyText(reader, &sink), "a box that opens can be text");
  uint64_t modules = 0;
  box::ModuleView module = {};
  while (reader.module(modules, &module)) ++modules;
  const std::string& text = sink.text();
  uint64_t lines = 0;
  size_t start = 0;
  for (size_t end; (end = text.find('\n', start)) != std::string::npos; start = end + 1) {
    ++lines;
    Require(end - start < 64 << 10, "a line is one that readers take");
  }
  Require(start == text.size(), "the last line ends");
  Require(lines == 3 + contents.stacks + modules, "one line a stack, one a module");
}

// As `heapflare leaks` does: numbers may be wrong, as the box is, but they are numbers.
void Leaks(const Reader& reader) {
  for (const std::optional<double> since : {std::optional<double>(), std::optional<double>(3.0)}) {
    const leak::Findings findings = leak::Find(reader, {.min_bytes = 0, .since = since});
    Require(std::isfinite(findings.now) && findings.now >= 0, "a box was watched for a time");
    uint64_t judged = 0;
    for (const uint64_t count : findings.by_verdict) judged += count;
    Require(judged == findings.judged, "every stack is judged once");
    for (const auto* const list : {&findings.growing, &findings.early}) {
      for (const leak::GrowthSuspect& suspect : *list) {
        Require(suspect.growth.error > 0 && std::isfinite(suspect.growth.slope) &&
                    suspect.growth.slope > suspect.growth.error,
                "a suspect grows");
        Require(suspect.holding.bytes >= 0 && suspect.holding.error >= 0, "and holds something");
      }
    }
    for (const leak::UnreachableSuspect& suspect : findings.unreachable) {
      Require(suspect.holding.samples > 0 && suspect.indirect_bytes <= suspect.holding.bytes,
              "what is lost indirectly is lost");
    }
  }
}

// As `heapflare ls` and `heapflare dump` do.
void FromFile(std::string_view bytes, bool opens) {
  static MemoryFile file;
  file.Write(bytes);
  const auto header = target::ReadBoxHeader(file.path());
  const auto box = target::BoxFile::Load(file.path());
  const auto listed = target::BoxFile::Load(file.path(), target::Parts::kTimeline);
  Require(box.ok() == opens && listed.ok() == opens && header.ok() == opens,
          "a file is a box if its bytes are");
  if (!opens) {
    Require(std::string(box.status().message()).starts_with(file.path()),
            "an error names the file");
    return;
  }
  box::TimelinePoint point = {};
  box::TimelinePoint same = {};
  Require(listed->LastPoint(&point) == box->LastPoint(&same) &&
              memcmp(&point, &same, sizeof(point)) == 0,
          "to list a box less is read, and the same found");
  const box::Header& found = box->header();
  Require(IsText(target::Printable(std::string(box->reader().program()))), "a row is one line");
  for (const uint64_t time : {found.start_utc, found.heartbeat_utc}) {
    Require(IsText(target::HumanTime(time)) && IsText(target::CompactTime(time)), "of any time");
  }
  Require(IsText(target::HumanSize(box->live_bytes())), "and size");
  Require(profile::ToText(profile::JsonProcess(found, "dead")).front() == '{', "JSON, too");
  Require(IsText(profile::Summary(*box)), "a summary is one line");
  for (const target::Life life : {target::Life::kDead, target::Life::kAlive}) {
    const std::string name = profile::NameFor(found, life, profile::kFormats[0]);
    Require(IsText(name) && name.find('/') == std::string::npos && name[0] != '-' &&
                name[0] != '.' && name.size() < 255,
            "a dump's name is a file name");
    Require(profile::FromBox(box->reader(), profile::DescribeBox(*box, life)).ok(),
            "a dump of it is a profile");
    const leak::Findings leaks = leak::Find(box->reader(), {});
    const auto suspects = leak::MakeProfile(*box, life, leaks);
    Require(suspects.ok() && profile::Validate(*suspects).ok(), "so are the suspects");
    const leak::Report report = {.box = *box, .life = life, .findings = leaks, .named = *suspects};
    for (const bool verbose : {false, true}) {
      std::string text = leak::AsText(report, verbose);
      std::erase(text, '\n');
      Require(IsText(text), "a report is lines of text");
    }
    Require(nlohmann::json::accept(profile::ToText(leak::AsJson(report))), "and JSON");
  }
}

}  // namespace

void FuzzOne(std::string_view bytes) {
  Input input(bytes);
  const auto first = input.Take<uint8_t>();
  // Not in a block of its size alone: records are aligned to their words, as in a mapping.
  const std::string box = BoxOf(first % 4, &input);
  const Alone alone(box);
  Reader reader;
  base::Text<256> problem;
  const bool opens = reader.Open(alone.view().data(), alone.view().size(), &problem);
  Require(opens == (problem.size() == 0), "a refusal has a reason");
  Require(IsText(problem.view()), "of one line");
  if ((first & kFromFile) != 0) FromFile(alone.view(), opens);
  if (!opens) return;

  const Contents contents = ReadEverything(reader, alone.view());
  pprof::EncodeOptions options;
  const box::Header& header = reader.header();
  options.time_utc = header.heartbeat_utc;
  if ((first & kStraw) != 0) {
    options.reason = "straw";
    options.usage = header.configured_interval;
    options.limit = header.start_utc;
    options.straw = {.stack = header.max_frames, .bytes = header.opened_utc};
  }
  Encoded(reader, options, contents, first);
  Leaks(reader);
  LegacyText(reader, contents);
}

}  // namespace heapflare::fuzz
