// Leaks in a controlled way until the kernel kills it, and keeps a ledger of what is live. See
// run_oom.py.
//
// A fixed share of every thread's work is healthy: it allocates and frees. The functions that leak
// have names of their own and are reached through a few frames, so that a profile can be told right
// from wrong.
#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "ledger.h"
#include "workload.h"

namespace workload {
namespace {

struct Options {
  std::string ledger;
  std::string_view blocks = "small";
  uint64_t rate = 0;  // MB/s (10^6) of all threads together; 0: as fast as possible
  uint64_t threads = 1;
  uint64_t give_up = 1024;  // MiB leaked, after which there is no limit to be killed by
  bool straw = false;
};

// Everything that is not freed stays reachable, as in a cache without eviction.
struct Block {
  Block* next;
};
thread_local Block* kept = nullptr;

// What follows every leaking allocation. Returns the bytes.
uint64_t Keep(Lane& lane, Site site, uint32_t size, void* memory) {
  if (memory == nullptr) {
    std::fprintf(stderr, "oom_workload: %s got no memory; is there an ulimit?\n", kSiteNames[site]);
    std::_Exit(4);
  }
  lane.Allocated(site, size);
  Touch(memory, kBlockSizes[size]);
  kept = new (memory) Block{kept};
  return kBlockSizes[size];
}

}  // namespace
}  // namespace workload

// The leaks. Not inlined, so that each is a frame of its own; the allocator is called by these
// functions themselves, so that they are leaves. Outside every namespace, because there g++ writes
// debug information in which `go tool pprof` of Go 1.19 finds the names of functions.
using namespace workload;  // names of the ledger

[[gnu::noinline]] uint64_t LeakSmallByNew(Lane& lane, uint32_t size) {
  lane.Announce(kSmallByNew, size);
  return Keep(lane, kSmallByNew, size, ::operator new(kBlockSizes[size]));
}

[[gnu::noinline]] uint64_t LeakSmallByMalloc(Lane& lane, uint32_t size) {
  lane.Announce(kSmallByMalloc, size);
  return Keep(lane, kSmallByMalloc, size, std::malloc(kBlockSizes[size]));
}

[[gnu::noinline]] uint64_t LeakMediumByCalloc(Lane& lane, uint32_t size) {
  lane.Announce(kMediumByCalloc, size);
  return Keep(lane, kMediumByCalloc, size, std::calloc(kBlockSizes[size], 1));
}

[[gnu::noinline]] uint64_t LeakMediumByRealloc(Lane& lane, uint32_t size) {
  lane.Announce(kMediumByRealloc, size);
  void* small = std::malloc(32);
  return Keep(lane, kMediumByRealloc, size, std::realloc(small, kBlockSizes[size]));
}

[[gnu::noinline]] uint64_t LeakHugeByMalloc(Lane& lane, uint32_t size) {
  lane.Announce(kHugeByMalloc, size);
  return Keep(lane, kHugeByMalloc, size, std::malloc(kBlockSizes[size]));
}

[[gnu::noinline]] uint64_t LeakHugeAligned(Lane& lane, uint32_t size) {
  lane.Announce(kHugeAligned, size);
  void* memory = nullptr;
  if (posix_memalign(&memory, 4096, kBlockSizes[size]) != 0) memory = nullptr;
  return Keep(lane, kHugeAligned, size, memory);
}

[[gnu::noinline]] uint64_t HoldWorkingSet(Lane& lane, uint64_t bytes) {
  uint64_t held = 0;
  while (held < bytes) {
    lane.Announce(kHoldWorkingSet, kHuge.first);
    held += Keep(lane, kHoldWorkingSet, kHuge.first, std::malloc(kBlockSizes[kHuge.first]));
  }
  return held;
}

[[gnu::noinline]] uint64_t TheLastStraw(Lane& lane) {
  lane.Announce(kTheLastStraw, kStrawSize);
  return Keep(lane, kTheLastStraw, kStrawSize, std::malloc(kBlockSizes[kStrawSize]));
}

namespace workload {
namespace {

using LeakFunction = uint64_t (*)(Lane& lane, uint32_t size);

struct BlockClass {
  std::string_view name;
  SizeClass sizes;
  std::array<LeakFunction, 3> leaks;  // in turn: the first one leaks two thirds
};
constexpr BlockClass kBlockClasses[] = {
    {"small", kSmall, {LeakSmallByNew, LeakSmallByNew, LeakSmallByMalloc}},
    {"medium", kMedium, {LeakMediumByCalloc, LeakMediumByCalloc, LeakMediumByRealloc}},
    {"huge", kHuge, {LeakHugeByMalloc, LeakHugeByMalloc, LeakHugeAligned}},
};

// One thread: serves requests, each of which does healthy work and leaves something behind.
class Worker {
 public:
  Worker(Lane& lane, const BlockClass& blocks, uint64_t seed)
      : lane_(lane), blocks_(blocks), random_(seed) {}

  // Leaks `bytes` in total, at `rate` bytes/s (0: at once).
  void Run(uint64_t bytes, double rate) {
    Pace pace(rate);
    while (pace.done() < bytes) {
      HandleRequest();
      pace.Did(FillCache());
    }
  }

 private:
  static constexpr size_t kInFlight = 64;

  struct Request {
    void* memory = nullptr;
    uint32_t size = 0;
  };

  // Healthy: replaces the oldest of the requests in flight.
  [[gnu::noinline]] void HandleRequest() {
    Request& request = in_flight_[turn_++ % kInFlight];
    if (request.memory != nullptr) {
      lane_.Announce(kHandleRequest, request.size);
      std::free(request.memory);
      lane_.Freed(kHandleRequest, request.size);
    }
    request.size = Random(kMedium.first + kMedium.count / 2);
    lane_.Announce(kHandleRequest, request.size);
    request.memory = std::malloc(kBlockSizes[request.size]);
    lane_.Allocated(kHandleRequest, request.size);
    if (request.memory != nullptr) Touch(request.memory, kBlockSizes[request.size]);
  }

  [[gnu::noinline]] uint64_t FillCache() {
    uint64_t leaked = 0;
    // As many blocks per request as give the healthy part a share in the work, not the most of it.
    const int blocks = blocks_.sizes.first == kSmall.first ? 24 : 1;
    for (int i = 0; i < blocks; ++i) {
      const LeakFunction leak = blocks_.leaks[leaks_++ % blocks_.leaks.size()];
      leaked += leak(lane_, blocks_.sizes.first + Random(blocks_.sizes.count));
    }
    return leaked;
  }

  // xorshift64*
  uint32_t Random(uint32_t below) {
    random_ ^= random_ >> 12;
    random_ ^= random_ << 25;
    random_ ^= random_ >> 27;
    return static_cast<uint32_t>((random_ * 0x2545F4914F6CDD1D) >> 33) % below;
  }

  Lane& lane_;
  const BlockClass& blocks_;
  uint64_t random_;
  size_t turn_ = 0;
  size_t leaks_ = 0;
  std::array<Request, kInFlight> in_flight_ = {};
};

bool ParseOptions(int argc, char** argv, Options* options) {
  const struct {
    std::string_view name;
    uint64_t* value;
  } numbers[] = {{"--rate=", &options->rate},
                 {"--threads=", &options->threads},
                 {"--give-up=", &options->give_up}};
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const std::string_view value = argument.substr(argument.find('=') + 1);
    bool understood = false;
    if (argument == "--straw") understood = options->straw = true;
    if (argument.starts_with("--ledger=")) {
      options->ledger = value;
      understood = true;
    }
    if (argument.starts_with("--blocks=")) {
      options->blocks = value;
      understood = std::any_of(std::begin(kBlockClasses), std::end(kBlockClasses),
                               [&](const BlockClass& blocks) { return blocks.name == value; });
    }
    for (const auto& number : numbers) {
      if (!argument.starts_with(number.name)) continue;
      const auto [end, error] =
          std::from_chars(value.data(), value.data() + value.size(), *number.value);
      understood = error == std::errc() && end == value.data() + value.size();
    }
    if (!understood) {
      std::fprintf(stderr, "oom_workload: '%s' is not an option or has a wrong value\n", argv[i]);
      return false;
    }
  }
  if (!options->ledger.empty() && options->threads >= 1 && options->threads <= 256) return true;
  std::fprintf(stderr,
               "usage: oom_workload --ledger=FILE [--blocks=small|medium|huge] [--threads=1..256]\n"
               "                    [--rate=MB/s] [--give-up=MiB] [--straw]\n");
  return false;
}

void Leak(Lane* lanes, const Options& options) {
  const auto* blocks =
      std::find_if(std::begin(kBlockClasses), std::end(kBlockClasses),
                   [&](const BlockClass& candidate) { return candidate.name == options.blocks; });
  const uint64_t bytes = options.give_up * kMiB / options.threads;
  const double rate =
      static_cast<double>(options.rate) * 1e6 / static_cast<double>(options.threads);
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < options.threads; ++i) {
    threads.emplace_back([=] {
      Worker worker(lanes[i], *blocks, 0x9E3779B97F4A7C15 * (i + 1));
      worker.Run(bytes, rate);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace workload

int main(int argc, char** argv) {
  workload::Options options;
  if (!workload::ParseOptions(argc, argv, &options)) return 2;
  workload::Lane* lanes =
      workload::OpenLedger(options.ledger, static_cast<uint32_t>(options.threads));
  if (lanes == nullptr) return 2;
  if (options.straw) {
    const uint64_t held = HoldWorkingSet(lanes[0], 100 * workload::kMiB);
    std::printf("oom_workload: lived with %llu bytes\n",
                static_cast<unsigned long long>(held + TheLastStraw(lanes[0])));
  } else {
    workload::Leak(lanes, options);
  }
  std::fprintf(stderr, "oom_workload: leaked what it was to leak and was not killed\n");
  return 3;
}
