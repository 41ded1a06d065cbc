#include "lib/recorder/own_memory.h"

#include <sys/uio.h>

#include <algorithm>

#include "lib/base/syscall.h"

namespace heapflare::recorder {
namespace {

constexpr uint64_t kPage = 4096;
constexpr long kFault = -14;  // EFAULT

// process_vm_readv on oneself is always allowed but by seccomp; it copies what it can.
long Read(const iovec* local, size_t locals, const iovec* remote, size_t remotes) {
  return base::Syscall(SYS_process_vm_readv, base::ProcessId(), base::Arg(local),
                       static_cast<long>(locals), base::Arg(remote), static_cast<long>(remotes), 0);
}

// Where seccomp forbids that: a mask is read before an impossible `how` is refused, so nothing changes,
// and no filter can do without this call.
bool IsReadable(uint64_t address) {
  constexpr long kNoHow = ~0L;
  constexpr long kMaskBytes = 8;
  return base::Syscall(SYS_rt_sigprocmask, kNoHow, static_cast<long>(address), 0, kMaskBytes) !=
         kFault;
}

}  // namespace

bool ReadOwnMemory(uint64_t address, void* to, size_t bytes) {
  const iovec local = {.iov_base = to, .iov_len = bytes};
  const iovec remote = {.iov_base = reinterpret_cast<void*>(address), .iov_len = bytes};
  return Read(&local, 1, &remote, 1) == static_cast<long>(bytes);
}

size_t ReadablePages(uint64_t page, size_t count) {
  // One byte of each page; the kernel stops at the first that is not there.
  constexpr size_t kAtOnce = 32;
  iovec remote[kAtOnce];
  char bytes[kAtOnce];
  size_t readable = 0;
  while (readable < count) {
    const size_t now = std::min(count - readable, kAtOnce);
    for (size_t i = 0; i < now; ++i) {
      remote[i] = {.iov_base = reinterpret_cast<void*>(page + (readable + i) * kPage),
                   .iov_len = 1};
    }
    const iovec local = {.iov_base = bytes, .iov_len = now};
    long got = Read(&local, 1, remote, now);
    if (got < 0 && got != kFault) {
      for (got = 0; got < static_cast<long>(now); ++got) {
        if (!IsReadable(page + (readable + static_cast<size_t>(got)) * kPage)) break;
      }
    }
    if (got > 0) readable += static_cast<size_t>(got);
    if (got != static_cast<long>(now)) break;
  }
  return readable;
}

}  // namespace heapflare::recorder
