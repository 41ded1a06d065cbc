// One line of a file of suppressions, in LeakSanitizer's syntax: `leak:PATTERN`, or `#` and a comment.
//
// A pattern matches a name that contains it; `*` stands for any characters, `^` at the start for the
// name's beginning, `$` at the end for its end. A leak is suppressed if a pattern matches the
// function, the source file or the module of any of its frames.
#pragma once

#include <string_view>

namespace heapflare::base {

// Whether `name` matches the pattern. An empty one matches nothing.
bool MatchesPattern(std::string_view pattern, std::string_view name);

// The pattern of one line; false: a comment, an empty line, or of another kind.
bool ParseSuppression(std::string_view line, std::string_view* pattern);

}  // namespace heapflare::base
