#include "lib/base/line_reader.h"

#include <errno.h>

#include <cstring>

#include "lib/base/syscall.h"

namespace heapflare::base {

LineReader::LineReader(int fd, char* buffer, size_t capacity)
    : buffer_(buffer), capacity_(capacity), fd_(fd) {}

LineReader::~LineReader() {
  if (fd_ >= 0) Close(fd_);
}

bool LineReader::Next(std::string_view* line) {
  for (;;) {
    const void* newline = memchr(buffer_ + begin_, '\n', end_ - begin_);
    if (newline != nullptr) {
      const auto length =
          static_cast<size_t>(static_cast<const char*>(newline) - (buffer_ + begin_));
      *line = {buffer_ + begin_, length};
      begin_ += length + 1;
      if (!skipping_) return true;
      skipping_ = false;
      continue;
    }
    if (begin_ == 0 && end_ == capacity_) {
      *line = {buffer_, capacity_};
      begin_ = end_;
      if (!skipping_) return skipping_ = true;
      continue;
    }
    memmove(buffer_, buffer_ + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
    long got = -EINTR;
    for (int i = 0; got == -EINTR && i < kMostInterruptions; ++i) {
      got = Read(fd_, buffer_ + end_, capacity_ - end_);
    }
    complete_ = got == 0;
    if (got <= 0) return false;
    end_ += static_cast<size_t>(got);
  }
}

}  // namespace heapflare::base
