#include "http_server.h"

#include <exception>
#include <memory>
#include <utility>

namespace storefront {

HttpServer::HttpServer(uint16_t port, size_t workers)
    : listener_(Socket::ListenOnLoopback(port)), workers_(workers) {}

HttpServer::~HttpServer() {
  stopping_ = true;
  listener_.Shutdown();
  if (acceptor_.joinable()) acceptor_.join();
  std::lock_guard lock(open_mutex_);
  for (const Socket* connection : open_) connection->Shutdown();
}

void HttpServer::Route(std::string method, std::string path, Handler handler) {
  routes_.emplace(std::move(method) + " " + std::move(path), std::move(handler));
}

void HttpServer::Start() {
  acceptor_ = std::thread([this] { AcceptConnections(); });
}

void HttpServer::AcceptConnections() {
  while (Socket connection = listener_.Accept()) {
    // std::function wants something that can be copied.
    workers_.Submit(
        [this, shared = std::make_shared<Socket>(std::move(connection))] { Serve(*shared); });
  }
}

void HttpServer::Serve(const Socket& connection) {
  {
    std::lock_guard lock(open_mutex_);
    if (stopping_) return;
    open_.insert(&connection);
  }
  MessageReader reader(connection);
  while (std::optional<Message> request = reader.Next()) {
    if (!connection.Send(Answer(*request))) break;
    requests_.fetch_add(1, std::memory_order_relaxed);
  }
  std::lock_guard lock(open_mutex_);
  open_.erase(&connection);
}

std::string HttpServer::Answer(const Message& request) {
  const auto route = routes_.find(request.start_line[0] + " " + request.start_line[1]);
  if (route == routes_.end()) return FormatResponse("404 Not Found", "no such page");
  try {
    return FormatResponse("200 OK", route->second(request));
  } catch (const std::exception& problem) {
    return FormatResponse("500 Internal Server Error", problem.what());
  }
}

}  // namespace storefront
