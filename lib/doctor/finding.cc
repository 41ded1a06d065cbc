#include "lib/doctor/finding.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_format.h"
#include "lib/target/human.h"

namespace heapflare::doctor {

const char* Name(Level level) {
  switch (level) {
    case Level::kOk:
      return "ok";
    case Level::kWarn:
      return "warn";
    case Level::kFail:
      return "FAIL";
  }
  return "";
}

const Finding* FirstFailure(const Findings& findings) {
  for (const Finding& finding : findings) {
    if (finding.level == Level::kFail) return &finding;
  }
  return nullptr;
}

void Append(Findings more, Findings* findings) {
  findings->insert(findings->end(), std::make_move_iterator(more.begin()),
                   std::make_move_iterator(more.end()));
}

std::string ToText(const Findings& findings) {
  size_t width = 0;
  for (const Finding& finding : findings) width = std::max(width, finding.what.size());
  std::string text;
  for (const Finding& finding : findings) {
    absl::StrAppendFormat(&text, "%-4s  %-*s  %s", Name(finding.level), static_cast<int>(width),
                          finding.what, target::Printable(finding.detail));
    if (!finding.remedy.empty()) text += " → " + target::Printable(finding.remedy);
    text += '\n';
  }
  return text;
}

}  // namespace heapflare::doctor
