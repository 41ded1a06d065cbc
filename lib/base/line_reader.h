// Reads a file of /proc line by line, with raw system calls and a buffer of fixed size.
//
// Of a line that does not fit the buffer the start is returned and the rest passed over. A last
// line without a newline is one that the kernel has not finished, and is left out, unless it fills
// the buffer.
#pragma once

#include <cstddef>
#include <string_view>

namespace heapflare::base {

class LineReader {
 public:
  // Takes over `fd`, which may be a failed open's negative errno. `buffer` stays the caller's.
  LineReader(int fd, char* buffer, size_t capacity);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  bool ok() const { return fd_ >= 0; }
  // The line, without its newline; valid until the next call. False at the end, or when reading
  // failed.
  bool Next(std::string_view* line);
  // After Next was false: whether that was the end.
  bool complete() const { return complete_; }

 private:
  char* buffer_;
  size_t capacity_;
  size_t begin_ = 0;
  size_t end_ = 0;
  int fd_;
  bool skipping_ = false;  // the start of a line was returned, its rest is to be passed over
  bool complete_ = false;
};

}  // namespace heapflare::base
