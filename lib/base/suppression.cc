#include "lib/base/suppression.h"

#include "lib/base/parse.h"

namespace heapflare::base {

bool MatchesPattern(std::string_view pattern, std::string_view name) {
  if (pattern.empty()) return false;
  bool anchored = false;
  if (pattern.front() == '^') {
    anchored = true;
    pattern.remove_prefix(1);
  }
  bool to_the_end = false;
  if (!pattern.empty() && pattern.back() == '$') {
    to_the_end = true;
    pattern.remove_suffix(1);
  }
  // Piece by piece: each where it comes first is as good as any later place, but for the last before
  // the end.
  for (;;) {
    const size_t star = pattern.find('*');
    const std::string_view piece = pattern.substr(0, star);
    const bool last = star == std::string_view::npos;
    if (last && to_the_end) {
      if (piece.size() > name.size()) return false;
      return anchored ? name == piece : name.substr(name.size() - piece.size()) == piece;
    }
    const size_t at = name.find(piece);
    if (at == std::string_view::npos || (anchored && at != 0)) return false;
    name.remove_prefix(at + piece.size());
    if (last) return true;
    pattern.remove_prefix(star + 1);
    anchored = false;
  }
}

bool ParseSuppression(std::string_view line, std::string_view* pattern) {
  constexpr std::string_view kKind = "leak:";
  line = base::TrimSpace(line);
  if (line.substr(0, kKind.size()) != kKind) return false;
  *pattern = base::TrimSpace(line.substr(kKind.size()));
  return !pattern->empty();
}

}  // namespace heapflare::base
