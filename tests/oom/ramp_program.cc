// Allocates on all threads as fast as it can, and tells when all of them stood still together:
//
//   ramp_program THREADS MIB
//
// says "ready", waits for a line on standard input, and fills MIB. Then, one line each:
//   still MS      the three longest times in which no thread allocated
//   seconds S     how long it took
// and waits for another line.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
constexpr uint64_t kBlock = 16 << 10;

std::atomic<uint64_t> allocated = 0;

[[gnu::noinline]] void Fill(uint64_t bytes) {
  for (; allocated.load(std::memory_order_relaxed) < bytes;) {
    void* const block = std::malloc(kBlock);
    if (block == nullptr) std::abort();
    std::memset(block, 1, kBlock);
    allocated.fetch_add(kBlock, std::memory_order_relaxed);
  }
}

void AwaitLine() {
  char byte = 0;
  while (read(0, &byte, 1) == 1 && byte != '\n') {
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int count = std::atoi(argv[1]);
  const uint64_t bytes = std::strtoull(argv[2], nullptr, 10) << 20;
  std::vector<double> still(1 << 16);
  // The first block brings the recorder to life.
  std::free(std::malloc(16 << 20));
  std::puts("ready");
  std::fflush(stdout);
  AwaitLine();
  const auto start = Clock::now();
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back(Fill, bytes);
  size_t stops = 0;
  auto since = start;
  for (uint64_t before = 0; before < bytes;) {
    std::this_thread::sleep_for(std::chrono::microseconds(500));
    const uint64_t now = allocated.load(std::memory_order_relaxed);
    if (now == before) continue;
    const auto time = Clock::now();
    if (stops < still.size()) {
      still[stops++] = std::chrono::duration<double, std::milli>(time - since).count();
    }
    since = time;
    before = now;
  }
  for (std::thread& thread : threads) thread.join();
  std::sort(still.begin(), still.end(), std::greater<>());
  for (int i = 0; i < 3; ++i) std::printf("still %.1f\n", still[static_cast<size_t>(i)]);
  std::printf("seconds %.2f\n", std::chrono::duration<double>(Clock::now() - start).count());
  std::fflush(stdout);
  AwaitLine();
  _exit(0);
}
