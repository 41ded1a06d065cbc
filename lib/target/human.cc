#include "lib/target/human.h"

#include <time.h>

#include <algorithm>
#include <string_view>

#include "absl/strings/str_format.h"
#include "lib/base/text.h"
#include "lib/pprof/utf8.h"

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

// Bytes of the UTF-8 character at the start, which is not ASCII; 0 if there is none.
size_t CharacterBytes(std::string_view text) {
  for (size_t bytes = 2; bytes <= std::min<size_t>(4, text.size()); ++bytes) {
    base::Text<8> mended;
    if (pprof::ValidUtf8(text.substr(0, bytes), &mended).data() == text.data()) return bytes;
  }
  return 0;
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
  for (size_t at = 0; at < text.size();) {
    const auto byte = static_cast<unsigned char>(text[at]);
    const bool ascii = byte >= 0x20 && byte < 0x7f;
    const size_t bytes = ascii ? 1 : CharacterBytes(std::string_view(text).substr(at));
    if (byte < 0x20 || byte == 0x7f || bytes == 0) {
      absl::StrAppendFormat(&clean, "\\x%02x", byte);
      ++at;
      continue;
    }
    clean.append(text, at, bytes);
    at += bytes;
  }
  return clean;
}

}  // namespace heapflare::target
