// Numbers and sizes out of text: settings, cgroup files, /proc. Allocates nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace heapflare::base {

// The whole of `text` as a decimal number, without sign, at most 2^64-1.
std::optional<uint64_t> ParseNumber(std::string_view text);
// The whole of `text` as a hexadecimal number without 0x.
std::optional<uint64_t> ParseHex(std::string_view text);
// "524288", "512KiB", "64MB", "1.5GiB", "2g": a number with an optional fraction and an optional
// unit. K, Ki, KiB (and M, G, T) are powers of 1024, KB (MB, GB, TB) of 1000; case does not matter.
// Bytes.
std::optional<uint64_t> ParseSize(std::string_view text);

std::string_view TrimSpace(std::string_view text);

// Takes the text up to `separator` off the front of `rest`, the separator too. False if `rest` is
// used up.
//   for (std::string_view line; TakeUntil('\n', &text, &line);) ...
bool TakeUntil(char separator, std::string_view* rest, std::string_view* part);

}  // namespace heapflare::base
