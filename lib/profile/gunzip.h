// Decompresses gzip with a limit on what comes out: 1 MiB of input can stand for 1 GiB.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace heapflare::profile {

inline bool IsGzip(std::string_view bytes) { return bytes.starts_with("\x1f\x8b"); }

// Members that follow each other are joined, as gunzip does. An error says what, in words that
// follow "PATH: ".
absl::StatusOr<std::string> Gunzip(std::string_view compressed, size_t most);

}  // namespace heapflare::profile
