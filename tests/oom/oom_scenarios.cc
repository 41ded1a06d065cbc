// Ways to reach a memory limit: see matrix_cells.py, which says what is required of each. Keeps a
// ledger of what it allocated by malloc (ledger.h); what is mapped directly is in no ledger, as it
// is in no heap profile.
//
// oom_scenarios --ledger=FILE --scenario=NAME --limit=MiB [--rate=MB/s] [--threads=N] [--go=FILE]
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "workload.h"

namespace workload {
namespace {

struct Options {
  std::string ledger;
  std::string go;             // "lowered" waits for this file
  std::string_view scenario;  // a name of kScenarios
  uint64_t limit = 0;         // MiB; what is held and requested follows from it
  uint64_t rate = 0;          // MB/s (10^6) of all threads together; 0: as fast as possible
  uint64_t threads = 1;

  double ThreadRate() const {
    return static_cast<double>(rate) * 1e6 / static_cast<double>(threads);
  }
};

// What is not freed stays reachable.
struct Block {
  Block* next;
};
thread_local Block* kept = nullptr;

void Keep(void* memory, uint64_t bytes) {
  if (memory == nullptr) {
    std::fprintf(stderr, "oom_scenarios: got no memory; is there an ulimit?\n");
    std::_Exit(4);
  }
  Touch(memory, bytes);
  kept = new (memory) Block{kept};
}

void AllocateMiB(Lane& lane, Site site) {
  constexpr uint32_t kSize = kHuge.first;
  lane.Announce(site, kSize);
  void* memory = std::malloc(kBlockSizes[kSize]);
  lane.Allocated(site, kSize);
  Keep(memory, kBlockSizes[kSize]);
}

}  // namespace
}  // namespace workload

// Outside every namespace, so that their names are as short in a profile. Not inlined, so that each
// is a frame of its own.
using namespace workload;

[[gnu::noinline]] void HoldWorkingSet(Lane& lane, uint64_t mib) {
  for (uint64_t i = 0; i < mib; ++i) AllocateMiB(lane, kHoldWorkingSet);
}

[[gnu::noinline]] uint64_t LeakByMalloc(Lane& lane, uint32_t turn) {
  const uint32_t size = kMedium.first + turn % kMedium.count;
  lane.Announce(kByMalloc, size);
  void* memory = std::malloc(kBlockSizes[size]);
  lane.Allocated(kByMalloc, size);
  Keep(memory, kBlockSizes[size]);
  return kBlockSizes[size];
}

// A buffer grows through all sizes up to 3 MiB, then the next one begins.
[[gnu::noinline]] uint64_t GrowByRealloc(Lane& lane, uint32_t turn) {
  constexpr uint32_t kSteps = kHuge.first + kHuge.count;
  thread_local void* buffer = nullptr;
  const uint32_t size = turn % kSteps;
  if (size == 0) buffer = nullptr;  // the last one is full, and kept
  lane.Announce(kGrowByRealloc, size);
  buffer = std::realloc(buffer, kBlockSizes[size]);
  if (size != 0) lane.Freed(kGrowByRealloc, size - 1);
  lane.Allocated(kGrowByRealloc, size);
  if (buffer == nullptr) std::_Exit(4);
  Touch(buffer, kBlockSizes[size]);
  if (size + 1 == kSteps) Keep(buffer, kBlockSizes[size]);
  return size == 0 ? kBlockSizes[0] : kBlockSizes[size] - kBlockSizes[size - 1];
}

[[gnu::noinline]] void* TheLastStraw(Lane& lane, uint32_t size) {
  lane.Announce(kTheLastStraw, size);
  void* memory = std::malloc(kBlockSizes[size]);
  lane.Allocated(kTheLastStraw, size);
  return memory;
}

namespace workload {
namespace {

// Calls step(turn), which returns the bytes that it took, until the kernel ends it, or three times
// the limit has passed.
template <typename Step>
void Climb(const Options& options, Step step) {
  Pace pace(options.ThreadRate());
  for (uint32_t turn = 0; pace.done() < 3 * options.limit * kMiB; ++turn) pace.Did(step(turn));
}

void OnThreads(uint64_t count, const std::function<void(uint64_t)>& work) {
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < count; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
}

void Leak(Lane* lanes, const Options& options) {
  OnThreads(options.threads, [&](uint64_t i) {
    Climb(options, [&](uint32_t turn) { return LeakByMalloc(lanes[i], turn); });
  });
}

void Realloc(Lane* lanes, const Options& options) {
  OnThreads(options.threads, [&](uint64_t i) {
    Climb(options, [&](uint32_t turn) { return GrowByRealloc(lanes[i], turn); });
  });
}

// Two fifths of the limit are held, and then 25/32 are asked for, at once: 50 of 64 MiB. The
// threads share the work of touching them.
void Straw(Lane* lanes, const Options& options) {
  uint32_t size = kStrawSize;
  while (size + 1 < kSizes && kBlockSizes[size] / kMiB != options.limit * 25 / 32) ++size;
  HoldWorkingSet(lanes[0], options.limit * 2 / 5);
  char* memory = static_cast<char*>(TheLastStraw(lanes[0], size));
  if (memory == nullptr) std::_Exit(4);
  constexpr uint64_t kStep = 64 * kKiB;
  const uint64_t share = kBlockSizes[size] / options.threads / kStep * kStep;
  OnThreads(options.threads, [&](uint64_t i) {
    Pace pace(options.ThreadRate());
    for (uint64_t at = 0; at < share; at += kStep) {
      Touch(memory + i * share + at, kStep);
      pace.Did(kStep);
    }
  });
}

// What malloc does not see: a fifth of the limit is heap, the rest is mapped.
void Map(Lane* lanes, const Options& options) {
  HoldWorkingSet(lanes[0], options.limit / 5);
  OnThreads(options.threads, [&](uint64_t) {
    constexpr uint64_t kStep = 256 * kKiB;
    Climb(options, [&](uint32_t) {
      void* memory =
          mmap(nullptr, kStep, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (memory == MAP_FAILED) std::_Exit(4);
      Touch(memory, kStep);
      return kStep;
    });
  });
}

// Somebody else is the problem: a third of the limit is heap, and churn goes on.
void Hold(Lane* lanes, const Options& options) {
  HoldWorkingSet(lanes[0], options.limit / 3);
  std::printf("ready\n");
  std::fflush(stdout);
  OnThreads(options.threads, [&](uint64_t) {
    while (true) {
      void* volatile memory = std::malloc(20 * kKiB);
      std::free(memory);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
}

// A server whose workers leak, each in its own lane of the ledger. Ends when the kernel has killed
// all of them.
void Workers(Lane* lanes, const Options& options) {
  for (uint64_t i = 0; i < options.threads; ++i) {
    const pid_t pid = fork();
    if (pid < 0) std::_Exit(4);
    if (pid != 0) continue;
    Climb(options, [&](uint32_t turn) { return LeakByMalloc(lanes[i], turn); });
    std::_Exit(3);
  }
  int status = 0;
  while (wait(&status) > 0) {
    if (!WIFSIGNALED(status)) std::_Exit(3);
  }
  std::_Exit(0);
}

// Leaks two fifths of the limit, waits until somebody has put that limit in place of a higher one,
// and goes on.
void Lowered(Lane* lanes, const Options& options) {
  HoldWorkingSet(lanes[0], options.limit * 2 / 5);
  std::printf("ready\n");
  std::fflush(stdout);
  while (access(options.go.c_str(), F_OK) != 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  Leak(lanes, options);
}

constexpr struct {
  std::string_view name;
  void (*run)(Lane* lanes, const Options& options);
} kScenarios[] = {{"leak", Leak}, {"straw", Straw},     {"realloc", Realloc}, {"mmap", Map},
                  {"hold", Hold}, {"workers", Workers}, {"lowered", Lowered}};

bool ParseOption(std::string_view argument, Options* options) {
  const std::string_view value = argument.substr(argument.find('=') + 1);
  const struct {
    std::string_view name;
    uint64_t* value;
  } numbers[] = {{"--rate=", &options->rate},
                 {"--threads=", &options->threads},
                 {"--limit=", &options->limit}};
  for (const auto& number : numbers) {
    if (!argument.starts_with(number.name)) continue;
    const auto [end, error] =
        std::from_chars(value.data(), value.data() + value.size(), *number.value);
    return error == std::errc() && end == value.data() + value.size();
  }
  if (argument.starts_with("--ledger=")) options->ledger = value;
  if (argument.starts_with("--go=")) options->go = value;
  if (argument.starts_with("--scenario=")) options->scenario = value;
  return argument.starts_with("--ledger=") || argument.starts_with("--go=") ||
         argument.starts_with("--scenario=");
}

}  // namespace
}  // namespace workload

int main(int argc, char** argv) {
  workload::Options options;
  for (int i = 1; i < argc; ++i) {
    if (workload::ParseOption(argv[i], &options)) continue;
    std::fprintf(stderr, "oom_scenarios: '%s' is not an option or has a wrong value\n", argv[i]);
    return 2;
  }
  const auto* scenario =
      std::find_if(std::begin(workload::kScenarios), std::end(workload::kScenarios),
                   [&](const auto& candidate) { return candidate.name == options.scenario; });
  if (scenario == std::end(workload::kScenarios) || options.ledger.empty() || options.limit == 0 ||
      options.threads < 1 || options.threads > 256) {
    std::fprintf(stderr, "oom_scenarios: --scenario, --ledger and --limit are needed\n");
    return 2;
  }
  workload::Lane* lanes =
      workload::OpenLedger(options.ledger, static_cast<uint32_t>(options.threads));
  if (lanes == nullptr) return 2;
  scenario->run(lanes, options);
  std::fprintf(stderr, "oom_scenarios: took what it was to take and was not killed\n");
  return 3;
}
