// Counts what a serialized profile will unfold to, before memory is allocated for it.
//
// Two bytes of input can become a message object of a hundred, one byte an integer of eight. A file
// of the allowed size could so take tens of gigabytes; no profile has anything near these counts.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"

namespace heapflare::profile {

inline constexpr uint64_t kMaximumMessages = 8'000'000;
inline constexpr uint64_t kMaximumNumbers = 64'000'000;

absl::Status CheckWire(std::string_view bytes);

}  // namespace heapflare::profile
