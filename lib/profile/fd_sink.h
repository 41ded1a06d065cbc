// Puts what the encoders write into a file descriptor, in large pieces.
#pragma once

#include <string>

#include "lib/pprof/sink.h"

namespace heapflare::profile {

class FdSink final : public pprof::Sink {
 public:
  // The descriptor stays the caller's.
  explicit FdSink(int fd) : fd_(fd) {}

  bool Write(const void* data, size_t bytes) override;
  // Writes what is still held back. False: some write failed, errno value in error().
  bool Flush();
  int error() const { return error_; }

 private:
  static constexpr size_t kBufferBytes = 256 << 10;

  int fd_;
  int error_ = 0;
  std::string buffer_;
};

}  // namespace heapflare::profile
