#include "lib/base/maps_reader.h"

#include "lib/base/parse.h"
#include "lib/base/syscall.h"

namespace heapflare::base {

bool ParseMapsLine(std::string_view text, MapsLine* line) {
  // start-limit permissions offset major:minor inode            path
  std::string_view field[7];
  constexpr char kSeparators[] = {'-', ' ', ' ', ' ', ':', ' ', ' '};
  for (size_t i = 0; i < std::size(field); ++i) {
    if (!base::TakeUntil(kSeparators[i], &text, &field[i])) return false;
  }
  const auto start = base::ParseHex(field[0]);
  const auto limit = base::ParseHex(field[1]);
  const auto offset = base::ParseHex(field[3]);
  const auto major = base::ParseHex(field[4]);
  const auto minor = base::ParseHex(field[5]);
  const auto inode = base::ParseNumber(field[6]);
  if (!start || !limit || !offset || !major || !minor || !inode || field[2].size() < 4) {
    return false;
  }
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  constexpr std::string_view kDeleted = " (deleted)";
  if (text.size() > kDeleted.size() && text.substr(text.size() - kDeleted.size()) == kDeleted) {
    text.remove_suffix(kDeleted.size());
  }
  *line = {.start = *start,
           .limit = *limit,
           .offset = *offset,
           .device = *major << 32 | *minor,
           .inode = *inode,
           .readable = field[2][0] == 'r',
           .writable = field[2][1] == 'w',
           .executable = field[2][2] == 'x',
           .shared = field[2][3] == 's',
           .path = text};
  return true;
}

int OpenOwnMaps() { return base::Open("/proc/self/maps", O_RDONLY); }

bool MapsReader::Next(MapsLine* line) {
  for (std::string_view text; lines_.Next(&text);) {
    if (ParseMapsLine(text, line)) return true;
  }
  return false;
}

}  // namespace heapflare::base
