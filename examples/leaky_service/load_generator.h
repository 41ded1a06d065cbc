// Visitors of the storefront: threads that send real requests over loopback connections.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

namespace storefront {

struct Load {
  uint16_t port = 0;
  size_t connections = 4;
  size_t basket_bytes = 16 << 10;  // what one login leaves behind in the service
  double logins_per_second = 0;    // of all connections together; 0: as many as possible
  uint64_t logins = 0;             // stop after this many; 0: never
};

class LoadGenerator {
 public:
  explicit LoadGenerator(const Load& load);
  // Stops, after the requests that are under way.
  ~LoadGenerator();

  // True once all logins were made, or the service is gone.
  bool done() const { return running_.load() == 0; }

 private:
  void Visit();

  const Load load_;
  std::atomic<uint64_t> logins_ = 0;
  std::atomic<size_t> running_;
  std::atomic<bool> stopping_ = false;
  std::vector<std::thread> visitors_;
};

}  // namespace storefront
