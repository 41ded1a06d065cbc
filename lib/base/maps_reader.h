// Reads /proc/PID/maps, with raw system calls and a buffer of fixed size.
//
// A path may be of any length: directories can be nested beyond PATH_MAX, and the kernel writes a
// newline in a name as four characters. Of a line that does not fit the buffer the start is
// returned: its numbers are right, its path is cut. Nothing is left out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "lib/base/line_reader.h"

namespace heapflare::base {

struct MapsLine {
  uint64_t start;
  uint64_t limit;
  uint64_t offset;
  uint64_t device;  // major << 32 | minor
  uint64_t inode;
  bool readable;
  bool writable;
  bool executable;
  bool shared;
  // Points into the reader's buffer, until the next line; without " (deleted)".
  std::string_view path;
};

// One line's fields; false if it is not one.
bool ParseMapsLine(std::string_view text, MapsLine* line);

class MapsReader {
 public:
  // Takes over `fd`, an open maps file, which may be a failed open's negative errno. `buffer` stays
  // the caller's; the numbers of a line need 100 bytes of it.
  MapsReader(int fd, char* buffer, size_t capacity) : lines_(fd, buffer, capacity) {}

  bool ok() const { return lines_.ok(); }
  // False at the end, or when reading failed.
  bool Next(MapsLine* line);
  // After Next was false: whether that was the end. What was not read may still be mapped.
  bool complete() const { return lines_.complete(); }

 private:
  LineReader lines_;
};

// /proc/self/maps: a descriptor or negative errno.
int OpenOwnMaps();

}  // namespace heapflare::base
