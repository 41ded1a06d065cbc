#include "lib/base/parse.h"

#include <cstddef>

namespace heapflare::base {
namespace {

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// Bytes that one of `unit` stands for, or nothing if there is no such unit.
std::optional<uint64_t> UnitBytes(std::string_view unit) {
  if (unit.empty() || (unit.size() == 1 && Lower(unit[0]) == 'b')) return 1;
  constexpr std::string_view kLetters = "kmgt";
  const size_t power = kLetters.find(Lower(unit[0]));
  if (power == std::string_view::npos) return std::nullopt;
  uint64_t base = 1024;
  if (unit.size() == 2 && Lower(unit[1]) == 'b') {
    base = 1000;
  } else if (unit.size() == 2 || unit.size() == 3) {
    if (Lower(unit[1]) != 'i' || (unit.size() == 3 && Lower(unit[2]) != 'b')) return std::nullopt;
  } else if (unit.size() > 3) {
    return std::nullopt;
  }
  uint64_t bytes = base;
  for (size_t i = 0; i < power; ++i) bytes *= base;
  return bytes;
}

}  // namespace

std::optional<uint64_t> ParseNumber(std::string_view text) {
  if (text.empty()) return std::nullopt;
  uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    if (__builtin_mul_overflow(value, uint64_t{10}, &value) ||
        __builtin_add_overflow(value, static_cast<uint64_t>(c - '0'), &value)) {
      return std::nullopt;
    }
  }
  return value;
}

std::optional<uint64_t> ParseHex(std::string_view text) {
  if (text.empty() || text.size() > 16) return std::nullopt;
  uint64_t value = 0;
  for (const char raw : text) {
    const char c = Lower(raw);
    if (c >= '0' && c <= '9') {
      value = value << 4 | static_cast<uint64_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      value = value << 4 | static_cast<uint64_t>(c - 'a' + 10);
    } else {
      return std::nullopt;
    }
  }
  return value;
}

std::optional<uint64_t> ParseSize(std::string_view text) {
  size_t digits = 0;
  while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') ++digits;
  const std::optional<uint64_t> whole = ParseNumber(text.substr(0, digits));
  if (!whole) return std::nullopt;
  std::string_view rest = text.substr(digits);
  // The fraction in millionths: more digits than that are beyond a byte of a MiB and are ignored.
  uint64_t millionths = 0;
  if (!rest.empty() && rest[0] == '.') {
    rest.remove_prefix(1);
    uint64_t worth = 100'000;
    size_t length = 0;
    for (; length < rest.size() && rest[length] >= '0' && rest[length] <= '9'; ++length) {
      millionths += static_cast<uint64_t>(rest[length] - '0') * worth;
      worth /= 10;
    }
    if (length == 0) return std::nullopt;
    rest.remove_prefix(length);
  }
  const std::optional<uint64_t> unit = UnitBytes(TrimSpace(rest));
  if (!unit) return std::nullopt;
  const auto bytes = static_cast<unsigned __int128>(*whole) * *unit +
                     static_cast<unsigned __int128>(millionths) * *unit / 1'000'000;
  if (bytes > UINT64_MAX) return std::nullopt;
  return static_cast<uint64_t>(bytes);
}

std::string_view TrimSpace(std::string_view text) {
  const auto is_space = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

bool TakeUntil(char separator, std::string_view* rest, std::string_view* part) {
  if (rest->empty()) return false;
  const size_t end = rest->find(separator);
  if (end == std::string_view::npos) {
    *part = *rest;
    *rest = {};
  } else {
    *part = rest->substr(0, end);
    rest->remove_prefix(end + 1);
  }
  return true;
}

}  // namespace heapflare::base
