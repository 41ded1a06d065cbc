#include "socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace storefront {
namespace {

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

Socket NewSocket() {
  const int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) throw std::system_error(errno, std::generic_category(), "socket");
  const int on = 1;
  setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  // A peer that hangs must not hold a worker for ever.
  const timeval patience = {.tv_sec = 5, .tv_usec = 0};
  setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  return Socket(descriptor);
}

}  // namespace

Socket::~Socket() {
  if (descriptor_ >= 0) close(descriptor_);
}

Socket Socket::ListenOnLoopback(uint16_t port) {
  Socket listener = NewSocket();
  const sockaddr_in address = Loopback(port);
  if (bind(listener.descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) <
          0 ||
      listen(listener.descriptor_, SOMAXCONN) < 0) {
    throw std::system_error(errno, std::generic_category(),
                            "listening on 127.0.0.1:" + std::to_string(port));
  }
  return listener;
}

Socket Socket::ConnectToLoopback(uint16_t port) {
  Socket connection = NewSocket();
  const sockaddr_in address = Loopback(port);
  if (connect(connection.descriptor_, reinterpret_cast<const sockaddr*>(&address),
              sizeof(address)) < 0) {
    throw std::system_error(errno, std::generic_category(),
                            "connecting to 127.0.0.1:" + std::to_string(port));
  }
  return connection;
}

uint16_t Socket::Port() const {
  sockaddr_in address = {};
  socklen_t size = sizeof(address);
  getsockname(descriptor_, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

Socket Socket::Accept() const {
  int descriptor;
  do {
    descriptor = accept4(descriptor_, nullptr, nullptr, SOCK_CLOEXEC);
  } while (descriptor < 0 && (errno == EINTR || errno == ECONNABORTED));
  return Socket(descriptor);
}

bool Socket::Send(std::string_view bytes) const {
  while (!bytes.empty()) {
    const ssize_t sent = send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

size_t Socket::Receive(char* buffer, size_t capacity) const {
  ssize_t received;
  do {
    received = recv(descriptor_, buffer, capacity, 0);
  } while (received < 0 && errno == EINTR);
  return received > 0 ? static_cast<size_t>(received) : 0;
}

void Socket::Shutdown() const { shutdown(descriptor_, SHUT_RDWR); }

}  // namespace storefront
