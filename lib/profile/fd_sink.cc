#include "lib/profile/fd_sink.h"

#include "lib/base/syscall.h"

namespace heapflare::profile {

bool FdSink::Write(const void* data, size_t bytes) {
  buffer_.append(static_cast<const char*>(data), bytes);
  return buffer_.size() < kBufferBytes || Flush();
}

bool FdSink::Flush() {
  if (error_ == 0) error_ = -base::WriteAll(fd_, buffer_.data(), buffer_.size());
  buffer_.clear();
  return error_ == 0;
}

}  // namespace heapflare::profile
