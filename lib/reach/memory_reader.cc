#include "lib/reach/memory_reader.h"

#include <errno.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstring>

#include "lib/base/syscall.h"

namespace heapflare::reach {
namespace {

constexpr size_t kPage = 4096;

}  // namespace

void MemoryReader::Open() {
  Close();
  process_ = base::ProcessId();
  memory_fd_ = base::Open("/proc/self/mem", O_RDONLY);
}

void MemoryReader::Close() {
  if (memory_fd_ >= 0) base::Close(memory_fd_);
  memory_fd_ = -1;
}

// Bytes read, 0 or negative errno if the first page cannot be.
long MemoryReader::ReadSome(uint64_t address, void* to, size_t bytes, bool protected_page) {
  if (!no_vm_read_ && !protected_page) {
    const iovec local = {.iov_base = to, .iov_len = bytes};
    const iovec remote = {.iov_base = reinterpret_cast<void*>(address), .iov_len = bytes};
    const long got = base::Syscall(SYS_process_vm_readv, process_, base::Arg(&local), 1,
                                   base::Arg(&remote), 1, 0);
    if (got > 0) return got;
    no_vm_read_ = got == -EPERM || got == -ENOSYS;
  }
  if (memory_fd_ < 0) return -EFAULT;
  return base::PRead(memory_fd_, to, bytes, address);
}

bool MemoryReader::Read(uint64_t address, void* to, size_t bytes, bool protected_page) {
  auto* out = static_cast<std::byte*>(to);
  bool any = false;
  while (bytes > 0) {
    const long got = ReadSome(address, out, bytes, protected_page);
    size_t step = 0;
    if (got > 0) {
      step = static_cast<size_t>(got);
      any = true;
    } else {
      step = std::min<size_t>(kPage - address % kPage, bytes);
      memset(out, 0, step);
      bytes_unread_ += step;
    }
    address += step;
    out += step;
    bytes -= step;
  }
  return any;
}

}  // namespace heapflare::reach
