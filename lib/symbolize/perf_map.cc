#include "lib/symbolize/perf_map.h"

#include <iterator>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/target/files.h"

namespace heapflare::symbolize {
namespace {

constexpr size_t kMaximumBytes = 256 << 20;

// Its number in the innermost PID namespace: the last of the line "NSpid:".
std::string OwnNumber(int pid) {
  const auto status = target::ReadWhole(absl::StrCat("/proc/", pid, "/status"), 1 << 16);
  if (!status.ok()) return absl::StrCat(pid);
  for (const absl::string_view line : absl::StrSplit(*status, '\n')) {
    if (!absl::StartsWith(line, "NSpid:")) continue;
    const std::vector<absl::string_view> numbers =
        absl::StrSplit(line.substr(6), absl::ByAnyChar(" \t"), absl::SkipEmpty());
    if (!numbers.empty()) return std::string(numbers.back());
  }
  return absl::StrCat(pid);
}

}  // namespace

PerfMap::PerfMap(absl::string_view text) {
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, absl::MaxSplits(' ', 2));
    uint64_t start = 0;
    uint64_t bytes = 0;
    if (fields.size() != 3 || !absl::SimpleHexAtoi(fields[0], &start) ||
        !absl::SimpleHexAtoi(fields[1], &bytes) || bytes == 0 || start + bytes < start) {
      continue;
    }
    auto overlapping = code_.lower_bound(start);
    if (overlapping != code_.begin() && std::prev(overlapping)->second.limit > start) {
      --overlapping;
    }
    while (overlapping != code_.end() && overlapping->first < start + bytes) {
      overlapping = code_.erase(overlapping);
    }
    code_[start] = {start + bytes, std::string(absl::StripAsciiWhitespace(fields[2]))};
  }
}

PerfMap PerfMap::Of(int pid) {
  const std::string name = absl::StrCat("/tmp/perf-", OwnNumber(pid), ".map");
  const auto text = target::ReadWhole(absl::StrCat("/proc/", pid, "/root", name), kMaximumBytes);
  return PerfMap(text.ok() ? absl::string_view(*text) : absl::string_view());
}

std::string PerfMap::Find(uint64_t address) const {
  const auto after = code_.upper_bound(address);
  if (after == code_.begin() || std::prev(after)->second.limit <= address) return "";
  return std::prev(after)->second.name;
}

}  // namespace heapflare::symbolize
