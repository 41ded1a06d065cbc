// The one-value files of a cgroup: memory.current, memory.max, memory.limit_in_bytes, ...
//
// Everything here allocates nothing and is async-signal-safe.
#pragma once

#include <cstdint>
#include <string_view>

namespace heapflare::cgroup {

// No limit, as a number of bytes: larger than any.
inline constexpr uint64_t kUnlimited = ~uint64_t{0};
// A value that could not be read (the same number as box::kUnknown).
inline constexpr uint64_t kUnknown = ~uint64_t{0};

// The whole of `text`, white space around it aside, as a decimal number; one beyond 2^64-1 counts
// as that. False if it is not a number.
bool ParseBytes(std::string_view text, uint64_t* bytes);

// A limit in bytes. "max" (v2), "-1" (sandboxes) and what v1 shows for "no limit" are kUnlimited.
// v1's value is LONG_MAX rounded down to a page, so it depends on the page size of the kernel;
// every number from 2^62 on is taken for it. False if `text` is no limit.
bool ParseLimit(std::string_view text, uint64_t* bytes);

// Reads a file's only value from its start, by pread. 0, negative errno, or -EINVAL if the content
// is not a value. `fd` stays the caller's, and so does its offset.
int ReadBytes(int fd, uint64_t* bytes);
int ReadLimit(int fd, uint64_t* bytes);

// Takes "KEY VALUE" apart; false if that is not what the line is.
bool ParseKeyValue(std::string_view line, std::string_view* key, uint64_t* value);

}  // namespace heapflare::cgroup
