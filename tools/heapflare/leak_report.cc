// heapflare leak-report: what a leak check at exit has for its report (recorder/leak_report.h).
#include <unistd.h>

#include "absl/strings/str_format.h"
#include "lib/box/leak_list.h"
#include "lib/leakcheck/leak_list.h"
#include "lib/leakcheck/report.h"
#include "lib/leakcheck/suppressions.h"
#include "lib/symbolize/symbolize.h"
#include "tools/heapflare/command.h"

namespace heapflare::tool {

int RunLeakReport(const Arguments& arguments) {
  Parser parser("leak-report");
  parser.app().footer(
      "The recorder runs it at the end of a leak check, with the list of leaks on stdin.");
  if (const auto code = parser.Parse(arguments)) return *code;
  auto list = leakcheck::ReadList(STDIN_FILENO);
  if (!list.ok()) return parser.Fail(list.status());
  symbolize::Symbolize(&list->profile);

  leakcheck::Suppressions suppressions;
  if (!list->suppressions.empty()) {
    const absl::Status read = suppressions.Read(list->suppressions);
    // A check that was to be silent about some leaks is loud about all.
    if (!read.ok()) parser.Complain(std::string(read.message()));
  }
  const leakcheck::Report report = leakcheck::MakeReport(&*list, &suppressions);
  std::string text = report.text;
  if (report.leaks) {
    const auto written = leakcheck::WriteProfile(*list);
    if (written.ok()) {
      absl::StrAppendFormat(&text, "  profile: %s\n", *written);
    } else {
      absl::StrAppendFormat(&text, "  no profile: %s\n", std::string(written.status().message()));
    }
  }
  absl::FPrintF(stderr, "%s", text);
  return report.leaks ? box::kLeaksRemain : box::kAllSuppressed;
}

}  // namespace heapflare::tool
