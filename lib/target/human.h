// Numbers as people read them.
#pragma once

#include <cstdint>
#include <string>

namespace heapflare::target {

// "512 B", "1.5 MiB", "256 MiB": binary units, at most one digit after the point.
std::string HumanSize(uint64_t bytes);

// "2025-11-24 03:10:07" of nanoseconds since 1970, UTC; "20251124T031007Z" for file names.
std::string HumanTime(uint64_t utc_ns);
std::string CompactTime(uint64_t utc_ns);
// With a zone, for machines: "2025-11-24T03:10:07Z".
std::string IsoTime(uint64_t utc_ns);

// Two significant units: "12 s", "3 min 5 s", "3 h 12 min", "2 d 4 h".
std::string HumanDuration(uint64_t seconds);

// Text from outside on one line of a terminal: control characters, and what is not UTF-8,
// as \xNN.
std::string Printable(const std::string& text);

}  // namespace heapflare::target
