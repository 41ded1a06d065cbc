#include "lib/recorder/maps_reader.h"

#include <errno.h>

#include <cstring>

#include "lib/base/parse.h"
#include "lib/base/syscall.h"

namespace heapflare::recorder {

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
           .executable = field[2][2] == 'x',
           .path = text};
  return true;
}

int OpenOwnMaps() { return base::Open("/proc/self/maps", O_RDONLY); }

MapsReader::MapsReader(int fd, char* buffer, size_t capacity)
    : buffer_(buffer), capacity_(capacity), fd_(fd) {}

MapsReader::~MapsReader() {
  if (fd_ >= 0) base::Close(fd_);
}

bool MapsReader::NextText(std::string_view* text) {
  for (;;) {
    const void* newline = memchr(buffer_ + begin_, '\n', end_ - begin_);
    if (newline != nullptr) {
      const auto length =
          static_cast<size_t>(static_cast<const char*>(newline) - (buffer_ + begin_));
      *text = {buffer_ + begin_, length};
      begin_ += length + 1;
      if (!skipping_) return true;
      skipping_ = false;
      continue;
    }
    if (begin_ == 0 && end_ == capacity_) {
      *text = {buffer_, capacity_};
      begin_ = end_;
      if (!skipping_) return skipping_ = true;
      continue;
    }
    memmove(buffer_, buffer_ + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
    long got = -EINTR;
    for (int i = 0; got == -EINTR && i < base::kMostInterruptions; ++i) {
      got = base::Read(fd_, buffer_ + end_, capacity_ - end_);
    }
    complete_ = got == 0;
    if (got <= 0) return false;
    end_ += static_cast<size_t>(got);
  }
}

bool MapsReader::Next(MapsLine* line) {
  for (std::string_view text; NextText(&text);) {
    if (ParseMapsLine(text, line)) return true;
  }
  return false;
}

}  // namespace heapflare::recorder
