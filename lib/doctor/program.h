// Whether the recorder can be preloaded into a program, and if not, why and what to do.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "lib/doctor/finding.h"

namespace heapflare::doctor {

// The file that `name` runs, as a shell finds it. NotFound: there is none (shells exit with 127);
// PermissionDenied: not executable (126). `search` is a PATH.
absl::StatusOr<std::string> FindProgram(const std::string& name, std::string_view search);

// libheapflare.so: HEAPFLARE_LIBRARY, or beside this command where it was built or installed.
absl::StatusOr<std::string> FindLibrary();

enum class Depth {
  kQuick,     // before a program starts: at most a few hundred microseconds
  kThorough,  // long tables of symbols too
};

// Of a program that FindProgram found. A script is followed to its interpreter. One finding per
// fact; a kFail among them means that preloading cannot work.
Findings CheckProgram(const std::string& path, const std::string& library, std::string_view search,
                      Depth depth);

}  // namespace heapflare::doctor
