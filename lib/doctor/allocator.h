// Finds the shared libraries of other allocators, to be preloaded after the recorder.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace heapflare::doctor {

// `name`: jemalloc, tcmalloc, mimalloc, or the path of a library. The error names what was looked
// for and where.
absl::StatusOr<std::string> FindAllocator(const std::string& name);

}  // namespace heapflare::doctor
