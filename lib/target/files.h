// Files as the command reads and writes them: bounded, never mapped, complete under their final
// name or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace heapflare::target {

// A descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Descriptor& operator=(Descriptor&& other) noexcept;
  int get() const { return fd_; }

 private:
  int fd_;
};

// "PATH: what: reason of errno", as NotFound, PermissionDenied, AlreadyExists, or Unavailable for
// what else can be wrong.
absl::Status FileError(std::string_view path, std::string_view what, int error);

// Opens for reading what must be a regular file; a pipe or a device is refused without waiting for
// it.
struct OpenedFile {
  Descriptor fd;
  uint64_t bytes = 0;
};
absl::StatusOr<OpenedFile> OpenRegular(const std::string& path);

// A file of at most `most` bytes, whatever its stat says (files of /proc say 0). A longer one is an
// error.
absl::StatusOr<std::string> ReadWhole(const std::string& path, size_t most);

// Target of a symbolic link; empty if it cannot be read.
std::string ReadLink(const std::string& path);

std::string Basename(std::string_view path);

// Writes a new file, for this user only: first under a temporary name in the same directory.
class NewFile {
 public:
  // `path` is the name wanted in the end.
  static absl::StatusOr<NewFile> Create(const std::string& path);
  ~NewFile();
  NewFile(NewFile&& other) noexcept;

  int fd() const { return fd_.get(); }

  // Gives the file its final name, replacing what has it already.
  absl::Status Replace();
  // The same, but a name that is taken gets a number: X-2.pb.gz for X.pb.gz. `suffix` (".pb.gz") is
  // what the number is put before. Returns the path.
  absl::StatusOr<std::string> TakeFreeName(std::string_view suffix);

 private:
  NewFile(std::string path, std::string temporary, int fd);

  std::string path_;
  std::string temporary_;  // empty: has its final name
  Descriptor fd_;
};

}  // namespace heapflare::target
