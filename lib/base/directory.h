// Lists a directory without allocating.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "lib/base/syscall.h"

namespace heapflare::base {

// Calls `visit(std::string_view name)` for every entry but "." and ".." until it returns false. 0
// or negative errno. Uses 4 KiB of stack; the directory may change while it is read.
template <typename Visit>
int ForEachEntry(const char* path, Visit visit) {
  const int fd = Open(path, O_RDONLY | O_DIRECTORY);
  if (fd < 0) return fd;
  // struct linux_dirent64 of getdents64(2): inode 8, offset 8, record length 2, type 1, name
  constexpr size_t kLengthAt = 16;
  constexpr size_t kNameAt = 19;
  alignas(8) char buffer[4096];
  long got = 0;
  bool more = true;
  while (more && (got = GetDirectoryEntries(fd, buffer, sizeof(buffer))) > 0) {
    for (long at = 0; more && at < got;) {
      uint16_t length = 0;
      __builtin_memcpy(&length, buffer + at + kLengthAt, sizeof(length));
      const std::string_view name(buffer + at + kNameAt);
      if (name != "." && name != "..") more = visit(name);
      at += length;
    }
  }
  Close(fd);
  return got < 0 ? static_cast<int>(got) : 0;
}

}  // namespace heapflare::base
