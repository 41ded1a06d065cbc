// What the fuzz targets share. Each target is one file with one function, FuzzOne, that is given
// bytes from anywhere and must end, without a crash, with everything that it Requires holding.
//
// Linked with libFuzzer (preset `fuzz`) it is called with what libFuzzer makes up; linked with
// replay.cc, in every build, with the files in seeds/TARGET, crashes found once among them.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

namespace heapflare::fuzz {

// The target's function; in the target's file.
void FuzzOne(std::string_view bytes);

// What must hold whatever the input. Says where it does not, and dies.
inline void Require(bool holds, const char* what, const char* file = __builtin_FILE(),
                    int line = __builtin_LINE()) {
  if (holds) return;
  fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
  abort();
}

// Takes the input apart, front to back; past its end everything is zero.
class Input {
 public:
  explicit Input(std::string_view bytes) : rest_(bytes) {}

  bool empty() const { return rest_.empty(); }
  std::string_view Rest() const { return rest_; }
  template <typename T>
  T Take() {
    T value = {};
    const std::string_view bytes = Bytes(sizeof(value));
    memcpy(&value, bytes.data(), bytes.size());
    return value;
  }
  std::string_view Bytes(size_t most) {
    const std::string_view bytes = rest_.substr(0, most);
    rest_.remove_prefix(bytes.size());
    return bytes;
  }
  // Up to the next byte 0xff, which no text that is parsed here needs.
  std::string_view Part() {
    const size_t end = std::min(rest_.find('\xff'), rest_.size());
    const std::string_view part = rest_.substr(0, end);
    rest_.remove_prefix(std::min(end + 1, rest_.size()));
    return part;
  }

 private:
  std::string_view rest_;
};

// The bytes alone in a block of exactly their size, so that a sanitizer sees one byte too far.
class Alone {
 public:
  explicit Alone(std::string_view bytes) : size_(bytes.size()), bytes_(new char[bytes.size()]) {
    memcpy(bytes_, bytes.data(), bytes.size());
  }
  ~Alone() { delete[] bytes_; }
  Alone(const Alone&) = delete;
  Alone& operator=(const Alone&) = delete;
  std::string_view view() const { return {bytes_, size_}; }

 private:
  size_t size_;
  char* bytes_;
};

// A file in memory whose content is replaced for each input; it has a path all the same.
class MemoryFile {
 public:
  MemoryFile() : fd_(memfd_create("fuzz", MFD_CLOEXEC)) {
    Require(fd_ >= 0, "a file in memory can be made");
    path_ = "/proc/self/fd/" + std::to_string(fd_);
  }
  ~MemoryFile() { close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  void Write(std::string_view content) {
    Require(ftruncate(fd_, 0) == 0 && pwrite(fd_, content.data(), content.size(), 0) ==
                                          static_cast<ssize_t>(content.size()),
            "a file in memory can be written");
  }
  // A descriptor of its own, at the file's start.
  int Open() const { return open(path_.c_str(), O_RDONLY | O_CLOEXEC); }
  int fd() const { return fd_; }
  const std::string& path() const { return path_; }

 private:
  int fd_;
  std::string path_;
};

}  // namespace heapflare::fuzz
