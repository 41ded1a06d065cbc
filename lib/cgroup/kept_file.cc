#include "lib/cgroup/kept_file.h"

#include <errno.h>
#include <sys/resource.h>

#include "lib/base/syscall.h"
#include "lib/cgroup/values.h"

namespace heapflare::cgroup {
namespace {

// Below this a descriptor is in the service's way; better keep none.
constexpr int kLowestKept = 10;

uint64_t Device(const base::FileStatus& status) {
  return uint64_t{status.device_major} << 32 | status.device_minor;
}

uint64_t Pack(uint32_t generation, int fd) {
  return uint64_t{generation} << 32 | static_cast<uint32_t>(fd);
}
uint32_t Generation(uint64_t state) { return static_cast<uint32_t>(state >> 32); }
int Descriptor(uint64_t state) { return static_cast<int>(static_cast<uint32_t>(state)); }

// A high, close-on-exec duplicate of `fd`, or negative errno.
int DuplicateHigh(int fd) {
  struct {
    uint64_t soft;
    uint64_t hard;
  } limit = {KeptFile::kTableSize, 0};  // struct rlimit64 of the system call
  base::Syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, base::Arg(&limit));
  const uint64_t table =
      limit.soft < KeptFile::kTableSize ? limit.soft : uint64_t{KeptFile::kTableSize};
  int result = -EMFILE;
  // -EINVAL: beyond the limit, which may have changed; -EMFILE: everything from there on is taken.
  for (int from = static_cast<int>(table) * 31 / 32; from >= kLowestKept; from /= 2) {
    result = static_cast<int>(base::Fcntl(fd, F_DUPFD_CLOEXEC, from));
    if (result >= 0) break;
  }
  return result;
}

}  // namespace

bool KeptFile::IsOurs(int fd) const {
  base::FileStatus status;
  return base::Status(fd, &status) == 0 && status.inode == inode_.load(std::memory_order_relaxed) &&
         Device(status) == device_.load(std::memory_order_relaxed);
}

void KeptFile::CloseIfOurs(int fd) {
  if (fd >= 0 && IsOurs(fd)) base::Close(fd);
}

int KeptFile::Read(uint64_t* value) {
  // The state is sequentially consistent throughout: it orders system calls of several threads.
  uint64_t state = state_.load();
  const int fd = Descriptor(state);
  if (fd < 0) return -EBADF;
  if (IsOurs(fd)) {
    uint64_t read = 0;
    const int result = ReadBytes(fd, &read);
    if (IsOurs(fd)) {
      if (state_.load() != state) return -EBADF;
      if (result == 0) *value = read;
      return result;
    }
  }
  state_.compare_exchange_strong(state, Pack(Generation(state), -1));
  return -EBADF;
}

void KeptFile::Keep(int fd) {
  if (busy_.exchange(true, std::memory_order_acquire)) return;
  base::FileStatus status;
  if (base::Status(fd, &status) == 0) {
    // A new generation begins before there is a descriptor that a reader could take for its own.
    const uint32_t generation = Generation(state_.load()) + 1;
    CloseIfOurs(Descriptor(state_.exchange(Pack(generation, -1))));
    const int high = DuplicateHigh(fd);
    if (high >= 0) {
      device_.store(Device(status), std::memory_order_relaxed);
      inode_.store(status.inode, std::memory_order_relaxed);
      state_.store(Pack(generation, high));
    }
  }
  busy_.store(false, std::memory_order_release);
}

void KeptFile::Drop() {
  const uint64_t state = state_.load();
  state_.store(Pack(Generation(state) + 1, -1));
  CloseIfOurs(Descriptor(state));
  busy_.store(false, std::memory_order_relaxed);
}

}  // namespace heapflare::cgroup
