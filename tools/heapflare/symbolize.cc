// heapflare symbolize
#include "lib/symbolize/symbolize.h"

#include "absl/strings/str_format.h"
#include "lib/profile/load.h"
#include "lib/profile/write_file.h"
#include "lib/symbolize/symbol_cache.h"
#include "tools/heapflare/command.h"

namespace heapflare::tool {
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
  const absl::Status written = profile::WriteFile(output, *profile);
  if (!written.ok()) return parser.Fail(written);
  absl::PrintF("%s\n", output);
  absl::FPrintF(stderr, "heapflare symbolize: %d locations named, %d without a symbol\n",
                result.named, result.unnamed);
  return kDone;
}

}  // namespace heapflare::tool
