#include "lib/base/text.h"

namespace heapflare::base {

TextWriter& TextWriter::Add(std::string_view text) {
  size_t fits = capacity_ - 1 - length_;
  if (text.size() <= fits) {
    fits = text.size();
  } else {
    truncated_ = true;
  }
  // An empty view may have no bytes to point to, which memcpy may not be given.
  if (!text.empty()) memcpy(memory_ + length_, text.data(), fits);
  length_ += fits;
  memory_[length_] = 0;
  return *this;
}

TextWriter& TextWriter::AddNumber(uint64_t value, int minimum_digits) {
  char digits[24];
  char* const end = digits + sizeof(digits);
  char* first = end;
  do {
    *--first = static_cast<char>('0' + value % 10);
    value /= 10;
  } while (value != 0);
  while (end - first < minimum_digits && first > digits) *--first = '0';
  return Add(std::string_view(first, static_cast<size_t>(end - first)));
}

TextWriter& TextWriter::AddSigned(int64_t value) {
  if (value >= 0) return AddNumber(static_cast<uint64_t>(value));
  return Add('-').AddNumber(0 - static_cast<uint64_t>(value));
}

TextWriter& TextWriter::AddHex(uint64_t value, int minimum_digits) {
  char digits[16];
  char* const end = digits + sizeof(digits);
  char* first = end;
  do {
    *--first = "0123456789abcdef"[value & 15];
    value >>= 4;
  } while (value != 0);
  while (end - first < minimum_digits && first > digits) *--first = '0';
  return Add(std::string_view(first, static_cast<size_t>(end - first)));
}

TextWriter& TextWriter::AddPrintable(std::string_view text) {
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte < 0x20 || byte == 0x7f) {
      Add("\\x").AddHex(byte, 2);
    } else {
      Add(c);
    }
  }
  return *this;
}

TextWriter& TextWriter::AddSize(uint64_t bytes) {
  static constexpr const char* kUnits[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"};
  int unit = 0;
  uint64_t whole = bytes;
  uint64_t below = 0;  // what the last division left, of 1024
  while (whole >= 1024) {
    below = whole & 1023;
    whole >>= 10;
    ++unit;
  }
  // Rounded to a tenth; 1023.96 KiB is 1 MiB.
  uint64_t tenths = whole * 10 + (below * 10 + 512) / 1024;
  if (tenths >= 10240 && unit < 6) {
    tenths = 10;
    ++unit;
  }
  AddNumber(tenths / 10);
  if (unit > 0 && tenths % 10 != 0 && tenths < 1000) Add('.').AddNumber(tenths % 10);
  return Add(kUnits[unit]);
}

}  // namespace heapflare::base
