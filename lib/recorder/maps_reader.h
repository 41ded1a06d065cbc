// Reads /proc/self/maps line by line, with raw system calls and a buffer of fixed size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace heapflare::recorder {

struct MapsLine {
  uint64_t start;
  uint64_t limit;
  uint64_t offset;
  uint64_t device;  // major << 32 | minor
  uint64_t inode;
  bool executable;
  // Points into the reader's buffer, until the next line; without " (deleted)".
  std::string_view path;
};

// One line's fields; false if it is not one.
bool ParseMapsLine(std::string_view text, MapsLine* line);

class MapsReader {
 public:
  // The buffer holds one line, path included.
  MapsReader(char* buffer, size_t capacity);
  ~MapsReader();
  MapsReader(const MapsReader&) = delete;
  MapsReader& operator=(const MapsReader&) = delete;

  bool ok() const { return fd_ >= 0; }
  // False at the end.
  bool Next(MapsLine* line);
  // After the end: whether all was read, and not only what came before a failure.
  bool complete() const { return complete_; }

 private:
  bool NextText(std::string_view* text);

  char* buffer_;
  size_t capacity_;
  size_t begin_ = 0;
  size_t end_ = 0;
  int fd_;
  bool complete_ = false;
};

}  // namespace heapflare::recorder
