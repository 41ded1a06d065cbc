// Suppressions of leaks, in LeakSanitizer's syntax: a line is `leak:PATTERN`, or `#` and a comment.
//
// A pattern matches a name that contains it; `*` stands for any characters, `^` at the start for the
// name's beginning, `$` at the end for its end. A leak is suppressed if a pattern matches the
// function, the source file or the module of any of its frames.
//
// The matching itself, which the command uses as well, and the file as the recorder reads it: 64 KiB
// of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace heapflare::recorder {

// Whether `name` matches the pattern. An empty one matches nothing.
bool MatchesPattern(std::string_view pattern, std::string_view name);

// The pattern of one line; false: a comment, an empty line, or of another kind.
bool ParseSuppression(std::string_view line, std::string_view* pattern);

class LeakSuppressions {
 public:
  // False: it cannot be read.
  bool Read(const char* path);
  bool Match(std::string_view name) const;

 private:
  char text_[64 << 10];
  size_t bytes_ = 0;
};

}  // namespace heapflare::recorder
