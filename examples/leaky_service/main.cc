// leaky_service: a small HTTP service with a leak, to see a heap profiler at work.
//
// It serves a storefront on 127.0.0.1 and sends itself the requests. Each login stays in the
// SessionCache for ever, so memory grows at a chosen rate until a limit kills the process; the rest
// of the service gives back what it takes.
#include <signal.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "http_server.h"
#include "load_generator.h"
#include "storefront.h"

namespace {

using storefront::HttpServer;
using storefront::Load;
using storefront::LoadGenerator;
using storefront::Storefront;

constexpr char kUsage[] =
    "usage: leaky_service [--rate=MIB] [--requests=N] [--seconds=S] [--port=P] [--workers=N]\n"
    "                     [--basket=BYTES]\n"
    "  --rate=MIB      leak this many MiB per second (default 64; 0: as fast as possible)\n"
    "  --requests=N    stop after N logins (default 0: never)\n"
    "  --seconds=S     stop after S seconds (default 0: never)\n"
    "  --port=P        listen on 127.0.0.1:P (default 0: a free port)\n"
    "  --workers=N     threads that answer requests, and as many that send them (default 4)\n"
    "  --basket=BYTES  what one login leaves behind (default 16384)\n";

struct Options {
  uint64_t rate = 64;
  uint64_t requests = 0;
  uint64_t seconds = 0;
  uint64_t port = 0;
  uint64_t workers = 4;
  uint64_t basket = 16 << 10;
};

std::optional<Options> ParseOptions(int argc, char** argv) {
  Options options;
  const struct {
    std::string_view name;
    uint64_t* value;
    uint64_t minimum;
    uint64_t maximum;
  } numbers[] = {
      {"--rate=", &options.rate, 0, 1 << 20},
      {"--requests=", &options.requests, 0, UINT64_MAX},
      {"--seconds=", &options.seconds, 0, 1 << 30},
      {"--port=", &options.port, 0, UINT16_MAX},
      {"--workers=", &options.workers, 1, 256},
      {"--basket=", &options.basket, 1, 4 << 20},
  };
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    bool understood = false;
    for (const auto& number : numbers) {
      if (!argument.starts_with(number.name)) continue;
      const std::string_view digits = argument.substr(number.name.size());
      const auto [end, error] =
          std::from_chars(digits.data(), digits.data() + digits.size(), *number.value);
      understood = error == std::errc() && end == digits.data() + digits.size() &&
                   *number.value >= number.minimum && *number.value <= number.maximum;
    }
    if (!understood) {
      std::fprintf(stderr, "leaky_service: '%s' is not an option or its number is out of range\n%s",
                   argv[i], kUsage);
      return std::nullopt;
    }
  }
  return options;
}

// SIGINT and SIGTERM reach only WaitForSignal; to be called before there is another thread.
sigset_t BlockStopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

// True if one came within that time.
bool WaitForSignal(const sigset_t& signals, long milliseconds) {
  const timespec patience = {.tv_sec = milliseconds / 1000,
                             .tv_nsec = milliseconds % 1000 * 1000000};
  return sigtimedwait(&signals, nullptr, &patience) > 0;
}

void Run(const Options& options) {
  const sigset_t signals = BlockStopSignals();
  Storefront storefront;
  // One more than connections of our own, so that there is an answer for somebody else's.
  HttpServer server(static_cast<uint16_t>(options.port), options.workers + 1);
  storefront.Attach(&server);
  server.Start();
  std::printf(
      "leaky_service: pid %d serves 127.0.0.1:%d and leaks %s\n", getpid(), server.port(),
      options.rate == 0 ? "as fast as it can" : (std::to_string(options.rate) + " MiB/s").c_str());
  std::fflush(stdout);

  const LoadGenerator load(Load{
      .port = server.port(),
      .connections = options.workers,
      .basket_bytes = options.basket,
      .logins_per_second =
          static_cast<double>(options.rate << 20) / static_cast<double>(options.basket),
      .logins = options.requests,
  });

  using std::chrono::steady_clock;
  const auto start = steady_clock::now();
  constexpr std::chrono::seconds kReportEvery(10);
  auto next_report = start + kReportEvery;
  while (!load.done() && !WaitForSignal(signals, 100)) {
    const auto now = steady_clock::now();
    if (options.seconds > 0 && now - start >= std::chrono::seconds(options.seconds)) break;
    if (now >= next_report) {
      std::printf("leaky_service: %llu requests, %zu sessions\n",
                  static_cast<unsigned long long>(server.requests()), storefront.sessions());
      std::fflush(stdout);
      next_report += kReportEvery;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::optional<Options> options = ParseOptions(argc, argv);
  if (!options) return 2;
  try {
    Run(*options);
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "leaky_service: %s\n", problem.what());
    return 1;
  }
  return 0;
}
