#include "lib/base/syscall.h"

#include <errno.h>
#include <linux/stat.h>

#include <cstring>

namespace heapflare::base {

int WriteAll(int fd, const void* from, size_t bytes) {
  const char* next = static_cast<const char*>(from);
  int interruptions = 0;
  while (bytes > 0) {
    const long written = Write(fd, next, bytes);
    if (written == -EINTR && ++interruptions < kMostInterruptions) continue;
    if (written < 0) return static_cast<int>(written);
    if (written == 0) return -EIO;
    next += written;
    bytes -= static_cast<size_t>(written);
  }
  return 0;
}

long ReadFile(const char* path, void* to, size_t capacity) {
  const int fd = Open(path, O_RDONLY | O_NOCTTY);
  if (fd < 0) return fd;
  size_t total = 0;
  long result = 0;
  int interruptions = 0;
  while (total < capacity) {
    result = Read(fd, static_cast<char*>(to) + total, capacity - total);
    if (result == -EINTR && ++interruptions < kMostInterruptions) continue;
    if (result <= 0) break;
    total += static_cast<size_t>(result);
  }
  Close(fd);
  return result < 0 ? result : static_cast<long>(total);
}

int Status(int directory, const char* path, int flags, FileStatus* status) {
  // The kernel's struct statx has 256 bytes; libc's headers of 2.28 and later carry it.
  struct statx raw = {};
  const long result = Syscall(SYS_statx, directory, Arg(path), flags, STATX_BASIC_STATS, Arg(&raw));
  if (result < 0) return static_cast<int>(result);
  *status = {.mode = raw.stx_mode,
             .uid = raw.stx_uid,
             .size = raw.stx_size,
             .inode = raw.stx_ino,
             .device_major = raw.stx_dev_major,
             .device_minor = raw.stx_dev_minor,
             .modified_seconds = raw.stx_mtime.tv_sec};
  return 0;
}

int FutexWait(const volatile uint32_t* word, uint32_t expected, int64_t timeout_ns) {
  constexpr int kWait = 0;
  constexpr int64_t kSecond = 1'000'000'000;
  const timespec timeout = {timeout_ns / kSecond, timeout_ns % kSecond};
  const int result = static_cast<int>(Syscall(SYS_futex, reinterpret_cast<long>(word), kWait,
                                              expected, timeout_ns < 0 ? 0 : Arg(&timeout)));
  if (result != 0 && result != -EAGAIN && result != -ETIMEDOUT) {
    constexpr int64_t kNap = 10'000'000;
    const timespec nap = {0, timeout_ns < 0 || timeout_ns > kNap ? kNap : timeout_ns};
    Syscall(SYS_nanosleep, Arg(&nap));
  }
  return result;
}

}  // namespace heapflare::base
