// reach_bench MIB small|huge THREADS: holds so much memory, in pages of that kind, with threads that
// wait, and one that reads the clock without end. For each line on stdin it prints the longest time,
// ns, between two of its looks since the last line: what a pass has cost a thread that never sleeps.
#include <poll.h>
#include <sys/mman.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "tests/bench/measure.h"

using namespace heapflare::bench;

int main(int argc, char** argv) {
  const auto bytes = static_cast<size_t>(Argument(argc, argv, 1, 1024)) << 20;
  const bool huge = argc > 2 && strcmp(argv[2], "huge") == 0;
  const long threads = Argument(argc, argv, 3, 1);
  constexpr size_t kHugePage = 2 << 20;
  void* const region = mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (region == MAP_FAILED) return 1;
  const auto start = (reinterpret_cast<uintptr_t>(region) + kHugePage - 1) / kHugePage * kHugePage;
  auto* const memory = reinterpret_cast<uint64_t*>(start);
  if (madvise(memory, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) != 0) return 1;
  // Numbers that are no pointers, as most of what services hold.
  for (size_t i = 0; i < bytes / sizeof(uint64_t); ++i) memory[i] = i * 0x9e3779b97f4a7c15;
  for (long i = 0; i < threads; ++i) {
    std::thread([] {
      for (;;) poll(nullptr, 0, -1);
    }).detach();
  }
  for (int i = 0; i < 2'000; ++i) Escape(malloc(100'000));
  static std::atomic<int64_t> longest = 0;
  std::thread([] {
    for (int64_t last = Nanoseconds(CLOCK_MONOTONIC);;) {
      const int64_t now = Nanoseconds(CLOCK_MONOTONIC);
      if (now - last > longest.load(std::memory_order_relaxed)) longest = now - last;
      last = now;
    }
  }).detach();
  puts("ready");
  fflush(stdout);
  char line[16];
  while (fgets(line, sizeof(line), stdin) != nullptr) {
    printf("%ld\n", static_cast<long>(longest.exchange(0)));
    fflush(stdout);
  }
  _Exit(0);
}
