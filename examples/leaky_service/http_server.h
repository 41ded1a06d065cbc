// Accepts connections on 127.0.0.1 and has a pool of workers answer the requests that come over
// them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "http.h"
#include "socket.h"
#include "worker_pool.h"

namespace storefront {

class HttpServer {
 public:
  // Returns the body of a "200 OK". Called by several workers at once.
  using Handler = std::function<std::string(const Message& request)>;

  HttpServer(uint16_t port, size_t workers);
  // Ends every connection.
  ~HttpServer();

  // Routes are added before Start().
  void Route(std::string method, std::string path, Handler handler);
  void Start();

  uint16_t port() const { return listener_.Port(); }
  uint64_t requests() const { return requests_.load(std::memory_order_relaxed); }

 private:
  void AcceptConnections();
  void Serve(const Socket& connection);
  std::string Answer(const Message& request);

  Socket listener_;
  std::map<std::string, Handler> routes_;  // "GET /path"
  std::atomic<uint64_t> requests_ = 0;
  std::atomic<bool> stopping_ = false;
  std::mutex open_mutex_;
  std::set<const Socket*> open_;  // connections that are being served
  WorkerPool workers_;
  std::thread acceptor_;
};

}  // namespace storefront
