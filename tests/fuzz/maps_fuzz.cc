// lib/base/maps_reader: /proc/self/maps.
#include <memory>
#include <vector>

#include "lib/base/maps_reader.h"
#include "lib/base/parse.h"
#include "tests/fuzz/fuzz_target.h"

namespace heapflare::fuzz {
namespace {

using base::MapsLine;

bool Same(const MapsLine& a, const MapsLine& b) {
  return a.start == b.start && a.limit == b.limit && a.offset == b.offset && a.device == b.device &&
         a.inode == b.inode && a.executable == b.executable && a.path == b.path;
}

void ComesBack(const MapsLine& line) {
  char numbers[160];
  snprintf(numbers, sizeof(numbers), "%lx-%lx r-%cp %08lx %02lx:%02lx %lu  ", line.start,
           line.limit, line.executable ? 'x' : '-', line.offset, line.device >> 32,
           line.device & 0xffffffff, line.inode);
  // A path of that end once is a deleted file's, twice a file of that name.
  const std::string text = numbers + std::string(line.path);
  MapsLine again = {};
  Require(base::ParseMapsLine(text, &again), "the kernel's form is read");
  Require(Same(line, again) || line.path.ends_with(" (deleted)"), "and means the same");
}

}  // namespace

void FuzzOne(std::string_view bytes) {
  Input input(bytes);
  const size_t capacity = 64 + input.Take<uint8_t>();
  const std::string_view text = input.Rest();

  // The lines as they are, and what a buffer of that size can hold of each. A last one without a
  // newline is one that the kernel has not finished; if it fills the buffer that is not known.
  std::vector<MapsLine> expected;
  std::string_view rest = text.substr(0, text.rfind('\n') + 1);
  for (std::string_view one; base::TakeUntil('\n', &rest, &one);) {
    MapsLine line = {};
    if (base::ParseMapsLine(one.substr(0, capacity), &line)) expected.push_back(line);
    const Alone alone(one);
    if (base::ParseMapsLine(alone.view(), &line)) ComesBack(line);
  }
  const std::string_view tail = text.substr(text.rfind('\n') + 1);
  MapsLine last = {};
  if (tail.size() >= capacity && base::ParseMapsLine(tail.substr(0, capacity), &last)) {
    expected.push_back(last);
  }

  static MemoryFile file;
  file.Write(text);
  const auto buffer = std::make_unique<char[]>(capacity);
  base::MapsReader reader(file.Open(), buffer.get(), capacity);
  size_t count = 0;
  for (MapsLine line = {}; reader.Next(&line); ++count) {
    Require(count < expected.size() && Same(line, expected[count]),
            "each line is read, one too long for the buffer as far as it fits");
  }
  Require(count == expected.size(), "no line is left out");
  Require(reader.complete(), "the end was reached");
}

}  // namespace heapflare::fuzz
