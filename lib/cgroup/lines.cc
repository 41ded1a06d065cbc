#include "lib/cgroup/lines.h"

#include <errno.h>

#include <cstring>

#include "lib/base/syscall.h"

namespace heapflare::cgroup {

Lines::Lines(int fd, char* buffer, size_t capacity)
    : buffer_(buffer), capacity_(capacity), fd_(fd), error_(fd < 0 ? fd : 0) {}

Lines::~Lines() {
  if (fd_ >= 0) base::Close(fd_);
}

bool Lines::Fill() {
  if (begin_ == 0 && end_ == capacity_) {
    in_long_line_ = true;
    end_ = 0;
  } else {
    memmove(buffer_, buffer_ + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  if (error_ != 0 || total_ >= kMaxBytes) return false;
  long got = -EINTR;
  for (int i = 0; got == -EINTR && i < base::kMostInterruptions; ++i) {
    got = base::Read(fd_, buffer_ + end_, capacity_ - end_);
  }
  if (got <= 0) {
    error_ = static_cast<int>(got);
    return false;
  }
  end_ += static_cast<size_t>(got);
  total_ += static_cast<size_t>(got);
  return true;
}

bool Lines::Next(std::string_view* line) {
  for (;;) {
    const char* const start = buffer_ + begin_;
    const void* const newline = memchr(start, '\n', end_ - begin_);
    if (newline != nullptr) {
      const auto length = static_cast<size_t>(static_cast<const char*>(newline) - start);
      begin_ += length + 1;
      if (in_long_line_) {
        in_long_line_ = false;
        continue;
      }
      *line = {start, length};
      return true;
    }
    if (Fill()) continue;
    // What a failed read left is not a line.
    if (end_ == 0 || in_long_line_ || error_ != 0) return false;
    *line = {buffer_, end_};
    begin_ = end_ = 0;
    return true;
  }
}

}  // namespace heapflare::cgroup
