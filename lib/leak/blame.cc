#include "lib/leak/blame.h"

#include <algorithm>

#include "lib/target/files.h"

namespace heapflare::leak {
namespace {

// Begins of the files' names of what allocates for others.
constexpr std::string_view kModules[] = {
    "libc.so",     "libc-",       "libstdc++.",   "libc++.",  "libc++abi.",
    "libm.so",     "libgcc_s.",   "libpthread",   "ld-linux", "libjemalloc",
    "libtcmalloc", "libmimalloc", "libheapflare", "[vdso]"};

// Of names, where the C++ library is compiled into the program.
constexpr std::string_view kNames[] = {"std::", "__gnu_cxx::", "operator new", "__libc_"};
constexpr std::string_view kFunctions[] = {"malloc",         "calloc",   "realloc",
                                           "reallocarray",   "memalign", "aligned_alloc",
                                           "posix_memalign", "strdup",   "strndup"};

bool Begins(std::string_view text, std::string_view with) { return text.starts_with(with); }

bool AllocatesForOthers(const Frame& frame) {
  const auto begins = [](std::string_view text) {
    return [text](std::string_view with) { return Begins(text, with); };
  };
  if (std::any_of(std::begin(kModules), std::end(kModules), begins(frame.module))) return true;
  const std::string name = ShortName(frame.function);
  return std::any_of(std::begin(kNames), std::end(kNames), begins(name)) ||
         std::find(std::begin(kFunctions), std::end(kFunctions), name) != std::end(kFunctions);
}

}  // namespace

std::vector<Frame> FramesOf(const profile::Frames& frames, const profile::Sample& sample) {
  std::vector<Frame> list;
  for (const uint64_t id : sample.location_id()) {
    const profile::Location& location = frames.location(id);
    const profile::Mapping* const mapping = frames.mapping(location);
    const std::string module =
        mapping == nullptr ? "" : target::Basename(frames.String(mapping->filename()));
    for (const profile::Line& line : location.line()) {
      const profile::Function& function = frames.function(line.function_id());
      list.push_back({.function = frames.String(function.name()),
                      .file = target::Basename(frames.String(function.filename())),
                      .line = line.line(),
                      .module = module});
    }
    if (location.line_size() == 0) list.push_back({frames.PlaceName(location), "", 0, module});
  }
  return list;
}

size_t NamedFrame(const std::vector<Frame>& frames) {
  const auto found = std::find_if_not(frames.begin(), frames.end(), AllocatesForOthers);
  return found == frames.end() ? 0 : static_cast<size_t>(found - frames.begin());
}

std::string ShortName(std::string_view function) {
  constexpr std::string_view kAnonymous = "(anonymous namespace)";
  constexpr std::string_view kOperator = "operator";
  // "libfoo.so!0x12" and "[truncated ...]" are no names.
  if (function.starts_with("[") || function.find('!') != std::string_view::npos) {
    return std::string(function);
  }
  std::string name;
  int depth = 0;  // of templates
  for (size_t at = 0; at < function.size(); ++at) {
    const std::string_view rest = function.substr(at);
    if (rest.starts_with(kAnonymous)) {
      if (depth == 0) name += kAnonymous;
      at += kAnonymous.size() - 1;
      continue;
    }
    if (depth == 0 && rest.starts_with(kOperator) && (at == 0 || function[at - 1] == ':')) {
      // Up to its arguments: operator(), operator<<, operator new, operator char const*.
      const size_t from = at + kOperator.size();
      const size_t end =
          function.find('(', function.substr(from).starts_with("()") ? from + 2 : from);
      name += function.substr(at, end == std::string_view::npos ? end : end - at);
      return name;
    }
    const char c = function[at];
    if (c == '<') {
      if (depth++ == 0) name += "<>";
    } else if (c == '>') {
      depth = std::max(depth - 1, 0);
    } else if (depth == 0 && c == '(') {
      break;
    } else if (depth == 0 && c == ' ') {
      name.clear();  // that was a return type
    } else if (depth == 0) {
      name += c;
    }
  }
  return name.empty() ? std::string(function) : name;
}

}  // namespace heapflare::leak
