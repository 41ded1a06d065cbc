// What the workloads of this folder share.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <thread>

#include "ledger.h"

namespace workload {

// The lanes of a new ledger file; nullptr with a message.
Lane* OpenLedger(const std::string& path, uint32_t lanes);

// Makes the kernel charge all of it.
inline void Touch(void* memory, uint64_t bytes) {
  constexpr uint64_t kPage = 4096;
  auto* at = static_cast<volatile char*>(memory);
  for (uint64_t i = 0; i < bytes; i += kPage) at[i] = 1;
  at[bytes - 1] = 1;
}

// Holds a thread to so many bytes a second; 0: as fast as possible.
class Pace {
 public:
  explicit Pace(double rate) : rate_(rate), start_(std::chrono::steady_clock::now()) {}

  // `bytes` more are done: waits until they are due.
  void Did(uint64_t bytes) {
    done_ += bytes;
    if (rate_ == 0 || done_ < next_look_) return;
    next_look_ = done_ + kLookEvery;
    const std::chrono::duration<double> due(static_cast<double>(done_) / rate_);
    std::this_thread::sleep_until(
        start_ + std::chrono::duration_cast<std::chrono::steady_clock::duration>(due));
  }
  uint64_t done() const { return done_; }

 private:
  static constexpr uint64_t kLookEvery = 64 * kKiB;
  double rate_;
  std::chrono::steady_clock::time_point start_;
  uint64_t done_ = 0;
  uint64_t next_look_ = 0;
};

}  // namespace workload
