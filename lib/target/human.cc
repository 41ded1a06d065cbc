#include "lib/target/human.h"

#include <time.h>

#include "absl/strings/str_format.h"
#include "lib/base/text.h"

namespace heapflare::target {
namespace {

std::string FormatTime(uint64_t utc_ns, const char* format) {
  const auto seconds = static_cast<time_t>(utc_ns / 1'000'000'000);
  tm parts = {};
  char text[64];
  // A hostile box may say any year; 2^64 ns end in 2554, which gmtime_r knows.
  if (gmtime_r(&seconds, &parts) == nullptr) return "unknown";
  return std::string(text, strftime(text, sizeof(text), format, &parts));
}

}  // namespace

std::string HumanSize(uint64_t bytes) {
  base::Text<32> text;
  return std::string(text.AddSize(bytes).view());
}

std::string HumanTime(uint64_t utc_ns) { return FormatTime(utc_ns, "%Y-%m-%d %H:%M:%S"); }
std::string CompactTime(uint64_t utc_ns) { return FormatTime(utc_ns, "%Y%m%dT%H%M%SZ"); }
std::string IsoTime(uint64_t utc_ns) { return FormatTime(utc_ns, "%Y-%m-%dT%H:%M:%SZ"); }

std::string HumanDuration(uint64_t seconds) {
  const uint64_t minutes = seconds / 60;
  const uint64_t hours = minutes / 60;
  if (minutes == 0) return absl::StrFormat("%d s", seconds);
  if (hours == 0) return absl::StrFormat("%d min %d s", minutes, seconds % 60);
  if (hours < 24) return absl::StrFormat("%d h %d min", hours, minutes % 60);
  return absl::StrFormat("%d d %d h", hours / 24, hours % 24);
}

std::string Printable(const std::string& text) {
  std::string clean;
  clean.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      absl::StrAppendFormat(&clean, "\\x%02x", byte);
    } else {
      clean += c;
    }
  }
  return clean;
}

}  // namespace heapflare::target
