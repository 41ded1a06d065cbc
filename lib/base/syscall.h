// System calls, made without libc.
//
// A service may define its own open(), mmap() or write() and a preloaded library would call those;
// errno belongs to the service. So the recorder enters the kernel itself: every function here
// returns the kernel's value, which is negative errno on failure (-ENOENT, ...), and touches
// neither errno nor any other thread-local. All are async-signal-safe and callable on any stack,
// before and after libc's own life.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include <cstddef>
#include <cstdint>

struct iovec;

namespace heapflare::base {

#if defined(__x86_64__)
inline long Syscall(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0,
                    long f = 0) {
  long result = 0;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}
#elif defined(__aarch64__)
inline long Syscall(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0,
                    long f = 0) {
  register long x8 asm("x8") = number;
  register long x0 asm("x0") = a;
  register long x1 asm("x1") = b;
  register long x2 asm("x2") = c;
  register long x3 asm("x3") = d;
  register long x4 asm("x4") = e;
  register long x5 asm("x5") = f;
  asm volatile("svc 0"
               : "+r"(x0)
               : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
               : "memory");
  return x0;
}
#else
#error "heapflare runs on x86_64 and aarch64"
#endif

// The kernel's failures are -4095..-1.
inline bool Failed(long result) { return static_cast<unsigned long>(result) >= -4095UL; }

template <typename T>
long Arg(T* pointer) {
  return reinterpret_cast<long>(pointer);
}

// Files. Descriptors are always close-on-exec.
inline int OpenAt(int directory, const char* path, int flags, mode_t mode = 0) {
  return static_cast<int>(
      Syscall(SYS_openat, directory, Arg(path), flags | O_CLOEXEC, static_cast<long>(mode)));
}
inline int Open(const char* path, int flags, mode_t mode = 0) {
  return OpenAt(AT_FDCWD, path, flags, mode);
}
inline int Close(int fd) { return static_cast<int>(Syscall(SYS_close, fd)); }
inline long Read(int fd, void* to, size_t bytes) {
  return Syscall(SYS_read, fd, Arg(to), static_cast<long>(bytes));
}
inline long PRead(int fd, void* to, size_t bytes, uint64_t offset) {
  return Syscall(SYS_pread64, fd, Arg(to), static_cast<long>(bytes), static_cast<long>(offset));
}
inline long PWrite(int fd, const void* from, size_t bytes, uint64_t offset) {
  return Syscall(SYS_pwrite64, fd, Arg(from), static_cast<long>(bytes), static_cast<long>(offset));
}
inline long Write(int fd, const void* from, size_t bytes) {
  return Syscall(SYS_write, fd, Arg(from), static_cast<long>(bytes));
}
// A call that is interrupted is made again, but not for ever: a filter may answer so each time.
inline constexpr int kMostInterruptions = 100;
// Writes all of it, going on after EINTR and short writes; 0 or negative errno.
int WriteAll(int fd, const void* from, size_t bytes);
// Reads a file from its start until the buffer is full or the file ends; bytes read or negative
// errno.
long ReadFile(const char* path, void* to, size_t capacity);

// What of a file the recorder looks at. Through statx (kernel 4.11), whose layout does not depend
// on the architecture or on libc.
struct FileStatus {
  uint32_t mode;
  uint32_t uid;
  uint64_t size;
  uint64_t inode;
  uint32_t device_major;
  uint32_t device_minor;
  int64_t modified_seconds;
};
// Of `path` relative to `directory`; flags as AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH. 0 or negative
// errno.
int Status(int directory, const char* path, int flags, FileStatus* status);
inline int Status(int fd, FileStatus* status) { return Status(fd, "", AT_EMPTY_PATH, status); }

inline int MkDir(const char* path, mode_t mode) {
  return static_cast<int>(Syscall(SYS_mkdirat, AT_FDCWD, Arg(path), static_cast<long>(mode)));
}
inline int MkDirAt(int directory, const char* path, mode_t mode) {
  return static_cast<int>(Syscall(SYS_mkdirat, directory, Arg(path), static_cast<long>(mode)));
}
inline int Unlink(const char* path) {
  return static_cast<int>(Syscall(SYS_unlinkat, AT_FDCWD, Arg(path), 0));
}
inline int Rename(const char* from, const char* to) {
  return static_cast<int>(Syscall(SYS_renameat2, AT_FDCWD, Arg(from), AT_FDCWD, Arg(to), 0));
}
// A second name for an open file, whose path in /proc is `link`.
inline int Link(const char* link, const char* to) {
  return static_cast<int>(
      Syscall(SYS_linkat, AT_FDCWD, Arg(link), AT_FDCWD, Arg(to), AT_SYMLINK_FOLLOW));
}
// Reserves [offset, offset + bytes): afterwards a store there cannot raise SIGBUS for lack of
// space.
inline int Reserve(int fd, uint64_t offset, uint64_t bytes) {
  return static_cast<int>(
      Syscall(SYS_fallocate, fd, 0, static_cast<long>(offset), static_cast<long>(bytes)));
}
inline int Truncate(int fd, uint64_t bytes) {
  return static_cast<int>(Syscall(SYS_ftruncate, fd, static_cast<long>(bytes)));
}
inline int ChangeMode(int fd, mode_t mode) {
  return static_cast<int>(Syscall(SYS_fchmod, fd, static_cast<long>(mode)));
}
inline long ReadLink(const char* path, char* to, size_t capacity) {
  return Syscall(SYS_readlinkat, AT_FDCWD, Arg(path), Arg(to), static_cast<long>(capacity));
}
// Raw directory entries (struct linux_dirent64); see directory.h for a reader of them.
inline long GetDirectoryEntries(int fd, void* to, size_t capacity) {
  return Syscall(SYS_getdents64, fd, Arg(to), static_cast<long>(capacity));
}
inline long Fcntl(int fd, int command, long argument) {
  return Syscall(SYS_fcntl, fd, command, argument);
}

// Memory.
inline void* Map(void* at, size_t bytes, int protection, int flags, int fd = -1,
                 uint64_t offset = 0) {
  const long result = Syscall(SYS_mmap, Arg(at), static_cast<long>(bytes), protection, flags, fd,
                              static_cast<long>(offset));
  return Failed(result) ? nullptr : reinterpret_cast<void*>(result);
}
inline void Unmap(void* at, size_t bytes) {
  Syscall(SYS_munmap, Arg(at), static_cast<long>(bytes));
}

// Processes and threads.
inline int ProcessId() { return static_cast<int>(Syscall(SYS_getpid)); }
inline int ThreadId() { return static_cast<int>(Syscall(SYS_gettid)); }
inline uint32_t EffectiveUserId() { return static_cast<uint32_t>(Syscall(SYS_geteuid)); }

// Sleeps while *word == expected, at most `timeout_ns` (negative: without end). The word may lie in
// a file shared with other processes. Where the kernel refuses it is a short nap, so that a loop
// around it does not spin.
int FutexWait(const volatile uint32_t* word, uint32_t expected, int64_t timeout_ns);
inline void FutexWake(const volatile uint32_t* word, int count) {
  constexpr int kWake = 1;
  Syscall(SYS_futex, reinterpret_cast<long>(word), kWake, count);
}

// Nanoseconds since an arbitrary start, not stopped in suspend by clock changes; and of UTC since
// 1970.
inline int64_t ClockNanoseconds(int clock) {
  timespec now = {};
  Syscall(SYS_clock_gettime, clock, Arg(&now));
  return static_cast<int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}
inline int64_t MonotonicNanoseconds() { return ClockNanoseconds(CLOCK_MONOTONIC); }
inline int64_t UtcNanoseconds() { return ClockNanoseconds(CLOCK_REALTIME); }

}  // namespace heapflare::base
