#include "lib/profile/export.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "absl/strings/str_format.h"
#include "lib/base/syscall.h"
#include "lib/pprof/gzip.h"
#include "lib/pprof/legacy_text.h"
#include "lib/pprof/live_error.h"
#include "lib/profile/folded.h"
#include "lib/profile/frames.h"
#include "lib/profile/json.h"
#include "lib/profile/load.h"
#include "lib/target/human.h"

namespace heapflare::profile {
namespace {

absl::Status SinkFailed() { return absl::InternalError("cannot be written"); }

absl::Status About(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrFormat("%s: %s", path, std::string(status.message())));
}

absl::Status ExportFolded(const Profile& profile, const std::string& sample_type,
                          pprof::Sink* sink) {
  const int type = FindSampleType(profile, sample_type);
  if (type >= 0) return WriteFolded(profile, type, sink);
  std::string known;
  for (const ValueType& value : profile.sample_type()) {
    known += (known.empty() ? "" : ", ") + profile.string_table(static_cast<int>(value.type()));
  }
  return absl::InvalidArgumentError(
      absl::StrFormat("no sample type '%s'; it has %s", sample_type, known));
}

// Calls encode(sink) with a sink whose bytes arrive compressed.
template <typename Encode>
absl::Status Compressed(pprof::Sink* sink, Encode encode) {
  const auto gzip = std::make_unique<pprof::Gzip>();
  if (!gzip->Begin(sink)) return absl::ResourceExhaustedError("zlib needs more memory");
  return encode(gzip.get()) && gzip->Finish() ? absl::OkStatus() : SinkFailed();
}

absl::Status ExportPprof(const Profile& profile, pprof::Sink* sink) {
  const std::string bytes = profile.SerializeAsString();
  return Compressed(sink,
                    [&](pprof::Sink* gzip) { return gzip->Write(bytes.data(), bytes.size()); });
}

}  // namespace

const Format* FindFormat(std::string_view name) {
  const auto* found = std::find_if(std::begin(kFormats), std::end(kFormats),
                                   [name](const Format& format) { return format.name == name; });
  return found == std::end(kFormats) ? nullptr : found;
}

pprof::EncodeOptions DescribeBox(const target::BoxFile& box, target::Life life) {
  const bool alive = life == target::Life::kAlive;
  const box::Header& header = box.header();
  pprof::EncodeOptions options;
  options.time_utc = alive ? static_cast<uint64_t>(base::UtcNanoseconds())
                           : std::max(header.heartbeat_utc, header.opened_utc);
  options.reason = alive ? "snapshot" : "recovered from the box";
  box::TimelinePoint point = {};
  if (box.LastPoint(&point)) {
    options.usage = point.usage;
    options.limit = point.limit;
  }
  return options;
}

absl::Status ExportBox(const target::BoxFile& box, target::Life life, Format::Id format,
                       const std::string& sample_type, const Refine& refine, pprof::Sink* sink) {
  const pprof::EncodeOptions options = DescribeBox(box, life);
  if (format == Format::kPprof && !refine) {
    return Compressed(
        sink, [&](pprof::Sink* gzip) { return pprof::Encode(box.reader(), options, gzip); });
  }
  if (format == Format::kGperftools) {
    return pprof::EncodeLegacyText(box.reader(), sink) ? absl::OkStatus() : SinkFailed();
  }
  auto profile = FromBox(box.reader(), options);
  if (!profile.ok()) return About(box.path(), profile.status());
  if (refine) refine(&*profile);
  if (format == Format::kPprof) return ExportPprof(*profile, sink);
  const absl::Status status =
      format == Format::kFolded
          ? ExportFolded(*profile, sample_type, sink)
          : WriteJson(*profile, JsonProcess(box.header(), std::string(target::Name(life))), sink);
  return status.ok() ? status : About(box.path(), status);
}

absl::Status ExportFile(const std::string& path, Format::Id format, const std::string& sample_type,
                        const Refine& refine, pprof::Sink* sink) {
  if (format == Format::kGperftools) {
    return absl::InvalidArgumentError(
        path + ": a profile cannot become gperftools text, only a box can; try --format=folded");
  }
  const auto bytes = ReadUncompressed(path);
  if (!bytes.ok()) return bytes.status();
  auto profile = Parse(*bytes);
  if (!profile.ok()) return About(path, profile.status());
  if (refine) refine(&*profile);
  if (format == Format::kPprof) return ExportPprof(*profile, sink);
  const absl::Status status = format == Format::kFolded ? ExportFolded(*profile, sample_type, sink)
                                                        : WriteJson(*profile, nullptr, sink);
  return status.ok() ? status : About(path, status);
}

std::string NameFor(const box::Header& header, target::Life life, const Format& format) {
  std::string program(header.program, strnlen(header.program, sizeof(header.program)));
  // It becomes a file name here, whatever the box says.
  for (char& c : program) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '/' || byte <= ' ' || byte >= 0x7f) c = '_';
  }
  if (program.empty() || program[0] == '.' || program[0] == '-') program.insert(0, "_");
  const std::string kind =
      life == target::Life::kAlive
          ? "snapshot-" + target::CompactTime(static_cast<uint64_t>(base::UtcNanoseconds()))
          : "recovered";
  return absl::StrFormat("%s.%d.%d.%s%s", program, header.pid, header.start_utc / 1'000'000'000,
                         kind, format.suffix);
}

std::string Summary(const target::BoxFile& box) {
  const box::Header& header = box.header();
  uint64_t objects = 0;
  uint64_t stacks = 0;
  pprof::LiveError error(box.reader());
  box::StackView stack = {};
  for (uint64_t i = 0; i < box.reader().stack_count(); ++i) {
    if (!box.reader().stack(i, &stack) || stack.live_objects == 0) continue;
    objects += box::WholeObjects(stack.live_objects);
    error.Add(stack);
    ++stacks;
  }
  base::Text<32> percent;
  if (error.Bytes() > 0) {
    percent.Add(" ± ");
    error.AddPercent(&percent);
  }
  std::string text = absl::StrFormat("live %s%s in %d objects from %d stack%s",
                                     target::HumanSize(box.live_bytes()), percent.c_str(), objects,
                                     stacks, stacks == 1 ? "" : "s");
  if (header.interval == 1) {
    text += ", every allocation recorded";
  } else if (header.interval == 0) {
    text += ", sampling is off";
  } else {
    text += ", one sample per " + target::HumanSize(header.interval);
  }
  const box::Losses& losses = header.losses;
  if (losses.samples + losses.missed_frees + losses.folded_stacks + losses.thinnings == 0) {
    return text + "; lost nothing";
  }
  if (losses.samples > 0) {
    text += absl::StrFormat("; lost %d samples (%s)", losses.samples,
                            target::HumanSize(box::WholeBytes(losses.sample_bytes)));
  }
  if (losses.missed_frees > 0) text += absl::StrFormat("; %d frees seen late", losses.missed_frees);
  if (losses.folded_stacks > 0) {
    text += absl::StrFormat("; %d samples without a stack of their own", losses.folded_stacks);
  }
  if (losses.thinnings > 0) text += absl::StrFormat("; thinned %d times", losses.thinnings);
  return text;
}

}  // namespace heapflare::profile
