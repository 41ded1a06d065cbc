// TCP over 127.0.0.1, owned by value. Errors of set-up throw std::system_error; a peer that goes
// away is no error: Send and Receive then return false and 0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

namespace storefront {

class Socket {
 public:
  Socket() = default;
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~Socket();

  // Port 0: the kernel chooses one, see Port().
  static Socket ListenOnLoopback(uint16_t port);
  static Socket ConnectToLoopback(uint16_t port);

  explicit operator bool() const { return descriptor_ >= 0; }
  uint16_t Port() const;

  // An empty socket once Shutdown() was called.
  Socket Accept() const;
  bool Send(std::string_view bytes) const;
  size_t Receive(char* buffer, size_t capacity) const;
  // Wakes every thread that waits on this socket; safe while they do.
  void Shutdown() const;

 private:
  int descriptor_ = -1;
};

}  // namespace storefront
