// heapflare dump
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "absl/strings/str_format.h"
#include "lib/profile/export.h"
#include "lib/profile/fd_sink.h"
#include "lib/profile/json.h"
#include "lib/symbolize/symbol_cache.h"
#include "lib/symbolize/symbolize.h"
#include "lib/target/box_file.h"
#include "lib/target/files.h"
#include "lib/target/human.h"
#include "lib/target/process.h"
#include "lib/target/target.h"
#include "tools/heapflare/command.h"

namespace heapflare::tool {
namespace {

struct Source {
  std::string path;
  std::optional<target::BoxFile> box;  // else it is a profile file
  target::Life life = target::Life::kDead;
  int pid = 0;  // in our PID namespace, if that is known
};

struct Options {
  std::string sample_type;
  bool symbols = true;
};

absl::StatusOr<Source> Open(const std::string& text) {
  const auto target = target::Resolve(text);
  if (!target.ok()) return target.status();
  Source source = {.path = target->path, .box = std::nullopt};
  if (target->kind == target::Kind::kProfile) return source;
  auto box = target::BoxFile::Load(target->path);
  if (!box.ok()) return box.status();
  source.box = std::move(*box);
  source.pid = target->pid;
  source.life = target->pid != 0 ? target::Life::kAlive : target::LifeOf(source.box->header());
  return source;
}

absl::Status Export(const Source& source, const profile::Format& format, const Options& options,
                    int fd, const std::string& shown) {
  profile::FdSink sink(fd);
  profile::Refine refine;
  if (options.symbols && format.id != profile::Format::kGperftools) {
    refine = [&source](profile::Profile* profile) {
      symbolize::Symbolize(profile,
                           {.pid = source.pid, .cache_directory = symbolize::CacheDirectory()});
    };
  }
  absl::Status status =
      source.box ? profile::ExportBox(*source.box, source.life, format.id, options.sample_type,
                                      refine, &sink)
                 : profile::ExportFile(source.path, format.id, options.sample_type, refine, &sink);
  if (status.ok() && !sink.Flush()) status = absl::InternalError("");
  if (!absl::IsInternal(status)) return status;
  if (sink.error() != 0) return target::FileError(shown, "cannot be written", sink.error());
  return absl::DataLossError(source.path + ": damaged beyond what a profile can express");
}

bool IsDirectory(const std::string& path) {
  struct stat status = {};
  return stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

// A device or a pipe is written to, not replaced.
bool IsSpecial(const std::string& path) {
  struct stat status = {};
  return stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode);
}

std::string FollowLinks(const std::string& path) {
  char* resolved = realpath(path.c_str(), nullptr);
  if (resolved == nullptr) return path;
  std::string target = resolved;
  free(resolved);
  return target;
}

std::string NameFor(const Source& source, const profile::Format& format) {
  if (source.box) return profile::NameFor(source.box->header(), source.life, format);
  std::string name = target::Basename(source.path);
  for (const profile::Format& known : profile::kFormats) {
    const std::string_view suffix = known.suffix;
    if (name.ends_with(suffix)) name.resize(name.size() - suffix.size());
  }
  return name + format.suffix;
}

// Returns the path of the file that was written.
absl::StatusOr<std::string> WriteTo(const Source& source, const profile::Format& format,
                                    const Options& options, const std::string& output) {
  if (!output.empty() && IsSpecial(output) && !IsDirectory(output)) {
    const target::Descriptor fd(open(output.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY));
    if (fd.get() < 0) return target::FileError(output, "cannot be written", errno);
    const absl::Status status = Export(source, format, options, fd.get(), output);
    if (!status.ok()) return status;
    return output;
  }
  const bool named = !output.empty() && !IsDirectory(output);
  const std::string directory =
      output.empty() || named ? "" : output + (output.ends_with("/") ? "" : "/");
  const std::string path = named ? FollowLinks(output) : directory + NameFor(source, format);
  auto file = target::NewFile::Create(path);
  if (!file.ok()) return file.status();
  absl::Status status = Export(source, format, options, file->fd(), path);
  if (!status.ok()) return status;
  if (!named) return file->TakeFreeName(format.suffix);
  status = file->Replace();
  if (!status.ok()) return status;
  return output;
}

std::string AsJson(const Source& source, const std::string& path) {
  nlohmann::ordered_json json = {{"path", path}, {"source", source.path}};
  if (source.box) {
    json["process"] =
        profile::JsonProcess(source.box->header(), std::string(target::Name(source.life)));
  }
  return profile::ToText(json, 2) + "\n";
}

}  // namespace

int RunDump(const Arguments& arguments) {
  Parser parser("dump");
  std::string target_text;
  std::string output;
  std::string format_name = "pprof";
  Options options;
  bool no_symbols = false;
  bool json = false;
  std::string formats;
  for (const profile::Format& format : profile::kFormats) {
    absl::StrAppendFormat(&formats, "%s%s (%s)", formats.empty() ? "" : ", ", format.name,
                          format.help);
  }
  parser.app().add_option("TARGET", target_text,
                          "PID, box, profile, or directory; by default the newest box");
  parser.app().add_option("-o,--output", output,
                          "File to write, replaced if it exists; '-' is standard output; in a "
                          "directory, and by default, a new name is chosen");
  parser.app().add_option("--format", format_name, formats)->default_str("pprof");
  parser.app().add_option(
      "--type", options.sample_type,
      "Sample type of folded stacks: alloc_objects, alloc_space, inuse_objects, "
      "inuse_space (the default)");
  parser.app().add_flag("--no-symbols", no_symbols,
                        "Leave out names: addresses only, as the box has them");
  parser.app().add_flag("--json", json, "Describe the result as JSON instead of printing its path");
  if (const auto code = parser.Parse(arguments)) return *code;

  const profile::Format* format = profile::FindFormat(format_name);
  if (format == nullptr) {
    return parser.Misused(absl::StrFormat(
        "--format '%s': not a format; formats are pprof, gperftools, folded, json", format_name));
  }
  options.symbols = !no_symbols;
  if (!options.sample_type.empty() && format->id != profile::Format::kFolded) {
    return parser.Misused("--type: only folded stacks show one sample type; add --format=folded");
  }
  const bool to_stdout = output == "-";
  if (to_stdout && json) return parser.Misused("--json: standard output is the profile's, by -o -");
  if (to_stdout && format->id == profile::Format::kPprof && isatty(STDOUT_FILENO) != 0) {
    return parser.Misused(
        "-o -: a terminal cannot show pprof format; redirect it, or --format=folded");
  }

  const auto source = Open(target_text);
  if (!source.ok()) return parser.Fail(source.status());
  if (to_stdout) {
    const absl::Status status = Export(*source, *format, options, STDOUT_FILENO, "standard output");
    if (!status.ok()) return parser.Fail(status);
  }
  std::string path = output;
  if (!to_stdout) {
    const auto written = WriteTo(*source, *format, options, output);
    if (!written.ok()) return parser.Fail(written.status());
    path = *written;
  }
  if (source->box) {
    parser.Complain(absl::StrFormat(
        "%s (%s): %s", target::Printable(std::string(source->box->reader().program())),
        std::string(target::Name(source->life)), profile::Summary(*source->box)));
  }
  if (to_stdout) return kDone;
  return Finish(json ? AsJson(*source, path) : path + "\n", kDone);
}

}  // namespace heapflare::tool
