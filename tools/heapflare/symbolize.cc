// heapflare symbolize
#include "lib/symbolize/symbolize.h"

#include "absl/strings/str_format.h"
#include "lib/pprof/gzip.h"
#include "lib/profile/fd_sink.h"
#include "lib/profile/load.h"
#include "lib/symbolize/symbol_cache.h"
#include "lib/target/files.h"
#include "tools/heapflare/command.h"

namespace heapflare::tool {
namespace {

absl::Status WriteCompressed(const std::string& path, const std::string& bytes) {
  auto file = target::NewFile::Create(path);
  if (!file.ok()) return file.status();
  profile::FdSink sink(file->fd());
  const auto gzip = std::make_unique<pprof::Gzip>();
  const bool written = gzip->Begin(&sink) && gzip->Write(bytes.data(), bytes.size()) &&
                       gzip->Finish() && sink.Flush();
  if (!written) return target::FileError(path, "cannot be written", sink.error());
  return file->Replace();
}

}  // namespace

int RunSymbolize(const Arguments& arguments) {
  Parser parser("symbolize");
  std::string input;
  std::string output;
  parser.app().add_option("FILE", input, "The profile")->required();
  parser.app().add_option("-o", output, "Where the result goes")->required();
  if (const auto code = parser.Parse(arguments)) return *code;

  auto profile = profile::LoadFile(input);
  if (!profile.ok()) return parser.Fail(profile.status());
  const symbolize::Result result =
      symbolize::Symbolize(&*profile, {.pid = 0, .cache_directory = symbolize::CacheDirectory()});
  const absl::Status written = WriteCompressed(output, profile->SerializeAsString());
  if (!written.ok()) return parser.Fail(written);
  absl::PrintF("%s\n", output);
  absl::FPrintF(stderr, "heapflare symbolize: %d locations named, %d without a symbol\n",
                result.named, result.unnamed);
  return kDone;
}

}  // namespace heapflare::tool
