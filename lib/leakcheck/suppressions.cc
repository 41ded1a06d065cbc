#include "lib/leakcheck/suppressions.h"

#include "lib/base/parse.h"
#include "lib/base/suppression.h"
#include "lib/target/files.h"

namespace heapflare::leakcheck {

absl::Status Suppressions::Read(const std::string& path) {
  constexpr size_t kMost = size_t{16} << 20;
  const auto text = target::ReadWhole(path, kMost);
  if (!text.ok()) return text.status();
  Parse(*text);
  return absl::OkStatus();
}

void Suppressions::Parse(std::string_view text) {
  int number = 0;
  for (std::string_view line; base::TakeUntil('\n', &text, &line);) {
    ++number;
    std::string_view pattern;
    if (base::ParseSuppression(line, &pattern)) {
      all_.push_back({.pattern = std::string(pattern), .line = number});
    }
  }
}

Suppression* Suppressions::Find(std::string_view name) {
  for (Suppression& suppression : all_) {
    if (base::MatchesPattern(suppression.pattern, name)) return &suppression;
  }
  return nullptr;
}

}  // namespace heapflare::leakcheck
