// A box or a profile file → what `heapflare dump` writes.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "lib/pprof/encoder.h"
#include "lib/pprof/sink.h"
#include "lib/profile/profile.pb.h"
#include "lib/target/box_file.h"
#include "lib/target/process.h"

namespace heapflare::profile {

struct Format {
  enum Id { kPprof, kGperftools, kFolded, kJson };
  Id id;
  const char* name;
  const char* suffix;  // of file names
  const char* help;
};
inline constexpr Format kFormats[] = {
    {Format::kPprof, "pprof", ".pb.gz", "profile.proto, gzip-compressed"},
    {Format::kGperftools, "gperftools", ".heap", "text of gperftools' heap profiler"},
    {Format::kFolded, "folded", ".folded", "one line a stack, for flame graphs"},
    {Format::kJson, "json", ".json", "everything, for scripts"},
};
// nullptr: no such format.
const Format* FindFormat(std::string_view name);

// How a profile of the box as it is now describes itself: when it was taken (a dead process: when
// it was last seen), and how full the cgroup was.
pprof::EncodeOptions DescribeBox(const target::BoxFile& box, target::Life life);

// What is done to a profile before it is written: symbols are added, say. Empty: nothing.
using Refine = std::function<void(Profile*)>;

// `sample_type` is for kFolded: a name, or empty for the default. Errors: InvalidArgument for a
// sample type that is not there and for a format that the source cannot give, others as "PATH:
// what"; Internal when the sink failed, which knows why.
absl::Status ExportBox(const target::BoxFile& box, target::Life life, Format::Id format,
                       const std::string& sample_type, const Refine& refine, pprof::Sink* sink);
absl::Status ExportFile(const std::string& path, Format::Id format, const std::string& sample_type,
                        const Refine& refine, pprof::Sink* sink);

// PROGRAM.PID.START.recovered.pb.gz, or of a living process ...snapshot-TIME.pb.gz.
std::string NameFor(const box::Header& header, target::Life life, const Format& format);

// "live 363.2 MiB in 12345 objects from 210 stacks, one sample per 512 KiB; lost nothing"
std::string Summary(const target::BoxFile& box);

}  // namespace heapflare::profile
