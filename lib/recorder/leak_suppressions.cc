#include "lib/recorder/leak_suppressions.h"

#include "lib/base/parse.h"
#include "lib/base/suppression.h"
#include "lib/base/syscall.h"

namespace heapflare::recorder {

bool LeakSuppressions::Read(const char* path) {
  const long got = base::ReadFile(path, text_, sizeof(text_));
  bytes_ = got > 0 ? static_cast<size_t>(got) : 0;
  return got >= 0;
}

bool LeakSuppressions::Match(std::string_view name) const {
  std::string_view rest(text_, bytes_);
  for (std::string_view line; base::TakeUntil('\n', &rest, &line);) {
    std::string_view pattern;
    if (base::ParseSuppression(line, &pattern) && base::MatchesPattern(pattern, name)) return true;
  }
  return false;
}

}  // namespace heapflare::recorder
