// lib/base: numbers, sizes and text; and the small parsers of names that are made of them.
#include <strings.h>

#include "lib/base/parse.h"
#include "lib/base/text.h"
#include "lib/recorder/tidy.h"
#include "lib/target/process.h"
#include "tests/fuzz/fuzz_target.h"

namespace heapflare::fuzz {
namespace {

using base::ParseHex;
using base::ParseNumber;
using base::ParseSize;

void NumbersComeBack(uint64_t value) {
  base::Text<64> text;
  Require(ParseNumber(text.AddNumber(value).view()) == value, "a number comes back");
  Require(ParseSize(text.view()) == value, "a number is a size in bytes");
  text.Clear();
  Require(ParseNumber(text.AddNumber(value, 30).view()) == value, "with zeros before it, too");
  text.Clear();
  Require(ParseHex(text.AddHex(value).view()) == value, "a hexadecimal number comes back");
  text.Clear();
  text.AddSigned(static_cast<int64_t>(value));
  Require(text.view() == std::to_string(static_cast<int64_t>(value)), "signs are right");
  // Sizes are rounded to a tenth of the unit, and PiB and EiB are written, but not read.
  text.Clear();
  text.AddSize(value);
  if (value >= uint64_t{1} << 49) return;
  const auto size = ParseSize(text.view());
  Require(size.has_value(), "a size that is written can be read");
  const uint64_t difference = *size > value ? *size - value : value - *size;
  Require(difference <= value / 20 + 1, "and is about the same");
}

void TextIsTakenApartWhole(std::string_view text, char separator) {
  std::string joined;
  bool first = true;
  std::string_view rest = text;
  for (std::string_view part; base::TakeUntil(separator, &rest, &part); first = false) {
    Require(part.find(separator) == std::string_view::npos, "a part has no separator");
    if (!first) joined += separator;
    joined += part;
  }
  if (!text.empty() && text.back() == separator) joined += separator;
  Require(joined == text, "the parts are the whole");
  const std::string_view trimmed = base::TrimSpace(text);
  Require(base::TrimSpace(trimmed) == trimmed, "what is trimmed stays as it is");
}

void TextIsCutNotOverrun(std::string_view bytes) {
  base::Text<17> small;
  small.Add(bytes);
  Require(small.view() == bytes.substr(0, 16), "what fits is there");
  Require(small.truncated() == (bytes.size() > 16), "what does not is told");
  Require(small.c_str()[small.size()] == 0, "it ends in zero");
  base::Text<4096> line;
  line.AddPrintable(bytes);
  for (const char c : line.view()) {
    Require(static_cast<uint8_t>(c) >= 0x20 && c != 0x7f, "nothing but text is printed");
  }
}

}  // namespace

void FuzzOne(std::string_view bytes) {
  Input input(bytes);
  NumbersComeBack(input.Take<uint64_t>());
  const char separator = input.Take<char>();
  const Alone alone(input.Rest());
  const std::string_view text = alone.view();
  const auto number = ParseNumber(text);
  Require(!number || ParseSize(text) == number, "numbers are sizes");
  if (const auto hex = ParseHex(text)) {
    base::Text<32> same;
    same.AddHex(*hex, static_cast<int>(text.size()));
    Require(same.size() == text.size() && strncasecmp(same.c_str(), text.data(), text.size()) == 0,
            "a hexadecimal number is all of its digits");
  }
  if (const auto size = ParseSize(text)) {
    Require(ParseSize(std::string(text) + " ").has_value() || text.back() == '.',
            "space after the unit does no harm");
    Require(*size == 0 || text.find_first_of("123456789") != std::string_view::npos,
            "a size comes from digits");
  }
  TextIsTakenApartWhole(text, separator);
  TextIsCutNotOverrun(text);
  if (const auto pid = target::ParsePid(text)) Require(*pid > 0, "process ids are positive");
  uint64_t process = 0;
  if (recorder::ParseBoxName(text, &process)) {
    Require(text.find(std::to_string(process) + ".") != std::string_view::npos &&
                text.ends_with(".box"),
            "a box's name has the number of its process");
  }
}

}  // namespace heapflare::fuzz
