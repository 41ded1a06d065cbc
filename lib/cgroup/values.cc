#include "lib/cgroup/values.h"

#include <errno.h>

#include <cstddef>

#include "lib/base/parse.h"
#include "lib/base/syscall.h"

namespace heapflare::cgroup {
namespace {

int ReadValue(int fd, bool (*parse)(std::string_view, uint64_t*), uint64_t* value) {
  // A 64-bit number and its newline take 21 characters. What fills the buffer is something else.
  char text[32];
  long got = 0;
  do {
    got = base::PRead(fd, text, sizeof(text), 0);
  } while (got == -EINTR);
  if (got < 0) return static_cast<int>(got);
  const auto length = static_cast<size_t>(got);
  if (length == sizeof(text) || !parse({text, length}, value)) return -EINVAL;
  return 0;
}

}  // namespace

bool ParseBytes(std::string_view text, uint64_t* bytes) {
  text = base::TrimSpace(text);
  if (text.empty()) return false;
  uint64_t value = 0;
  bool overflow = false;
  for (const char c : text) {
    if (c < '0' || c > '9') return false;
    overflow |= __builtin_mul_overflow(value, uint64_t{10}, &value) ||
                __builtin_add_overflow(value, static_cast<uint64_t>(c - '0'), &value);
  }
  *bytes = overflow ? UINT64_MAX : value;
  return true;
}

bool ParseLimit(std::string_view text, uint64_t* bytes) {
  text = base::TrimSpace(text);
  if (text == "max" || text == "-1") {
    *bytes = kUnlimited;
    return true;
  }
  if (!ParseBytes(text, bytes)) return false;
  if (*bytes >= uint64_t{1} << 62) *bytes = kUnlimited;
  return true;
}

int ReadBytes(int fd, uint64_t* bytes) { return ReadValue(fd, ParseBytes, bytes); }
int ReadLimit(int fd, uint64_t* bytes) { return ReadValue(fd, ParseLimit, bytes); }

bool ParseKeyValue(std::string_view line, std::string_view* key, uint64_t* value) {
  return base::TakeUntil(' ', &line, key) && ParseBytes(line, value);
}

}  // namespace heapflare::cgroup
