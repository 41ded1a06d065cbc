#include "load_generator.h"

#include <chrono>
#include <cstdio>
#include <exception>
#include <string>

#include "http.h"
#include "socket.h"

namespace storefront {
namespace {

using Clock = std::chrono::steady_clock;

// When the login with this number is due.
Clock::time_point Due(Clock::time_point start, uint64_t number, double per_second) {
  if (per_second <= 0) return start;
  const std::chrono::duration<double> offset(static_cast<double>(number) / per_second);
  return start + std::chrono::duration_cast<Clock::duration>(offset);
}

}  // namespace

LoadGenerator::LoadGenerator(const Load& load) : load_(load), running_(load.connections) {
  for (size_t i = 0; i < load.connections; ++i) {
    visitors_.emplace_back([this] {
      try {
        Visit();
      } catch (const std::exception& problem) {
        std::fprintf(stderr, "leaky_service: load generator: %s\n", problem.what());
      }
      --running_;
    });
  }
}

LoadGenerator::~LoadGenerator() {
  stopping_ = true;
  for (std::thread& visitor : visitors_) visitor.join();
}

void LoadGenerator::Visit() {
  const Socket connection = Socket::ConnectToLoopback(load_.port);
  MessageReader replies(connection);
  const auto ask = [&](std::string_view method, std::string_view path, std::string_view body) {
    return connection.Send(FormatRequest(method, path, body)) ? replies.Next() : std::nullopt;
  };

  const Clock::time_point start = Clock::now();
  const std::string basket(load_.basket_bytes, 'x');
  while (!stopping_) {
    const uint64_t number = logins_++;
    if (load_.logins > 0 && number >= load_.logins) return;
    std::this_thread::sleep_until(Due(start, number, load_.logins_per_second));

    const std::string user = "visitor-" + std::to_string(number);
    const auto login = ask("POST", "/login", "user=" + user + "&basket=" + basket);
    if (!login || !ask("POST", "/catalog", "token=" + login->body)) return;
  }
}

}  // namespace storefront
