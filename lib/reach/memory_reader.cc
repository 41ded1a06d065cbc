#include "lib/reach/memory_reader.h"

#include <errno.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "lib/base/held_signals.h"
#include "lib/base/syscall.h"

namespace heapflare::reach {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kWindow = 256 << 10;

}  // namespace

void MemoryReader::Open() {
  Close();
  memory_fd_ = base::Open("/proc/self/mem", O_RDONLY);
  OpenWindow();
}

void MemoryReader::OpenWindow() {
  constexpr long kCloseOnExec = 1;  // MFD_CLOEXEC
  window_fd_ = static_cast<int>(
      base::Syscall(SYS_memfd_create, base::Arg("heapflare-window"), kCloseOnExec));
  if (window_fd_ < 0) return;
  // Under a limit on the size of files there is no window.
  const base::HeldSignals held;
  if (held.Take(base::Truncate(window_fd_, kWindow)) != 0) return;
  window_ = static_cast<std::byte*>(base::Map(nullptr, kWindow, PROT_READ, MAP_SHARED, window_fd_));
}

void MemoryReader::Close() {
  if (window_ != nullptr) base::Unmap(window_, kWindow);
  if (window_fd_ >= 0) base::Close(window_fd_);
  if (memory_fd_ >= 0) base::Close(memory_fd_);
  window_ = nullptr;
  window_fd_ = memory_fd_ = -1;
}

// Bytes read, 0 or negative errno if the first page cannot be.
long MemoryReader::ReadSome(uint64_t address, void* to, size_t bytes, bool protected_page) {
  if (window_ != nullptr && !protected_page) {
    const long got = base::PWrite(window_fd_, reinterpret_cast<const void*>(address),
                                  std::min(bytes, kWindow), 0);
    if (got > 0) {
      memcpy(to, window_, static_cast<size_t>(got));
      return got;
    }
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
