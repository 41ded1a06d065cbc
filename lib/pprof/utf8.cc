#include "lib/pprof/utf8.h"

#include <cstddef>
#include <cstdint>

namespace heapflare::pprof {
namespace {

// Length of the valid sequence at the start of `text`, 0 if there is none.
size_t SequenceLength(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  // Overlong forms, surrogates, beyond U+10FFFF.
  const uint8_t second = byte(1);
  if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
      (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f)) {
    return 0;
  }
  return length;
}

}  // namespace

std::string_view ValidUtf8(std::string_view text, base::TextWriter* memory) {
  bool valid = true;
  memory->Clear();
  for (std::string_view rest = text; !rest.empty();) {
    const size_t length = SequenceLength(rest);
    if (length == 0) {
      valid = false;
      memory->Add('?');
      rest.remove_prefix(1);
    } else {
      memory->Add(rest.substr(0, length));
      rest.remove_prefix(length);
    }
  }
  return valid ? text : memory->view();
}

}  // namespace heapflare::pprof
