// Numbers of /proc/self/status, read without allocating.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace heapflare::bench {

// `field` as in "VmRSS:", in bytes; -1 if it cannot be read.
inline long StatusBytes(const char* field) {
  static char text[8192];
  const int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
  if (file < 0) return -1;
  const ssize_t length = read(file, text, sizeof text - 1);
  close(file);
  if (length <= 0) return -1;
  text[length] = '\0';
  const char* const found = strstr(text, field);
  return found == nullptr ? -1 : atol(found + strlen(field)) * 1024;
}

}  // namespace heapflare::bench
