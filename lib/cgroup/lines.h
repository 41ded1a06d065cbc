// Reads a file of /proc or of a cgroup line by line, however long the file is, with a buffer of
// fixed size.
//
// A line that does not fit into the buffer is left out as a whole: no piece of it is ever taken for
// a line of its own. The last line counts with or without its newline. Reading ends after
// kMaxBytes: a service may put something endless under a descriptor number that is ours.
//
// Allocates nothing; async-signal-safe; one reader belongs to one thread.
#pragma once

#include <cstddef>
#include <string_view>

namespace heapflare::cgroup {

class Lines {
 public:
  static constexpr size_t kMaxBytes = size_t{16} << 20;

  // Takes over `fd`, which may be a failed open's negative errno: then there are no lines. `buffer`
  // stays the caller's and must outlive the reader.
  Lines(int fd, char* buffer, size_t capacity);
  ~Lines();
  Lines(const Lines&) = delete;
  Lines& operator=(const Lines&) = delete;

  // The next line without its newline, valid until the next call; false at the end or on an error.
  bool Next(std::string_view* line);
  // 0, or negative errno of the open or of the read that ended the lines.
  int error() const { return error_; }

 private:
  // Makes room and reads more. False at the end.
  bool Fill();

  char* buffer_;
  size_t capacity_;
  size_t begin_ = 0;  // of what was read and not yet returned
  size_t end_ = 0;
  size_t total_ = 0;
  int fd_;
  int error_ = 0;
  bool in_long_line_ = false;  // its start was thrown away, its end is to follow
};

}  // namespace heapflare::cgroup
