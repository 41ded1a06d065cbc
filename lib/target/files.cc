#include "lib/target/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_format.h"

namespace heapflare::target {

Descriptor::~Descriptor() {
  if (fd_ >= 0) close(fd_);
}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

absl::Status FileError(std::string_view path, std::string_view what, int error) {
  const std::string message = absl::StrFormat("%s: %s: %s", path, what, strerror(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
    case ESRCH:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(message);
    case EEXIST:
      return absl::AlreadyExistsError(message);
    default:
      return absl::UnavailableError(message);
  }
}

absl::StatusOr<OpenedFile> OpenRegular(const std::string& path) {
  // Non-blocking, or a pipe without a writer would hold us up.
  Descriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (fd.get() < 0) return FileError(path, "cannot be opened", errno);
  struct stat status = {};
  if (fstat(fd.get(), &status) != 0) return FileError(path, "cannot be read", errno);
  if (!S_ISREG(status.st_mode)) {
    return absl::FailedPreconditionError(path + ": not a regular file");
  }
  return OpenedFile{std::move(fd), static_cast<uint64_t>(status.st_size)};
}

absl::StatusOr<std::string> ReadWhole(const std::string& path, size_t most) {
  auto file = OpenRegular(path);
  if (!file.ok()) return file.status();
  std::string content;
  size_t used = 0;
  for (;;) {
    // Grown by what arrives, not by what the file says about itself.
    if (used == content.size()) {
      content.resize(std::min(most + 1, std::max<size_t>(used * 2, 16 << 10)));
    }
    const ssize_t got = read(file->fd.get(), content.data() + used, content.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FileError(path, "cannot be read", errno);
    if (got == 0) break;
    used += static_cast<size_t>(got);
    if (used > most) {
      return absl::ResourceExhaustedError(
          absl::StrFormat("%s: larger than %d bytes; nothing that is read here is", path, most));
    }
  }
  content.resize(used);
  return content;
}

std::string ReadLink(const std::string& path) {
  char target[4096];
  const ssize_t length = readlink(path.c_str(), target, sizeof(target));
  return length > 0 ? std::string(target, static_cast<size_t>(length)) : std::string();
}

std::string Basename(std::string_view path) {
  const size_t slash = path.rfind('/');
  return std::string(slash == std::string_view::npos ? path : path.substr(slash + 1));
}

NewFile::NewFile(std::string path, std::string temporary, int fd)
    : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}

NewFile::NewFile(NewFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)),
      fd_(std::move(other.fd_)) {
  other.temporary_.clear();
}

NewFile::~NewFile() {
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

absl::StatusOr<NewFile> NewFile::Create(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "" : path.substr(0, slash + 1);
  std::string temporary = directory + ".heapflare-XXXXXX";
  const int fd = mkostemp(temporary.data(), O_CLOEXEC);
  if (fd < 0) return FileError(path, "cannot be written", errno);
  return NewFile(path, temporary, fd);
}

absl::Status NewFile::Replace() {
  if (rename(temporary_.c_str(), path_.c_str()) != 0) {
    return FileError(path_, "cannot be written", errno);
  }
  temporary_.clear();
  return absl::OkStatus();
}

absl::StatusOr<std::string> NewFile::TakeFreeName(std::string_view suffix) {
  std::string stem = path_;
  if (stem.ends_with(suffix)) stem.resize(stem.size() - suffix.size());
  for (int number = 1; number < 10000; ++number) {
    const std::string name = number == 1 ? path_ : absl::StrFormat("%s-%d%s", stem, number, suffix);
    int result = renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, name.c_str(), RENAME_NOREPLACE);
    if (result != 0 && (errno == EINVAL || errno == ENOSYS)) {
      // File systems that cannot rename so: a link does not replace either.
      result = link(temporary_.c_str(), name.c_str());
      if (result == 0) unlink(temporary_.c_str());
    }
    if (result == 0) {
      temporary_.clear();
      return name;
    }
    if (errno != EEXIST) return FileError(name, "cannot be written", errno);
  }
  return FileError(path_, "cannot be written", EEXIST);
}

}  // namespace heapflare::target
