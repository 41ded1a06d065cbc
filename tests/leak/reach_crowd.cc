// reach_crowd THREADS SECONDS [MIB]: holds so much memory, with threads that allocate, free, wait for each other and come and go,
// each with blocks that only it refers to. Says at its end whether all worked and nothing was
// damaged: "ok OPERATIONS". What a service must survive while passes are made.
#include <poll.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

namespace {

std::atomic<bool> stop = false;
std::atomic<uint64_t> operations = 0;
std::atomic<uint64_t> damaged = 0;

struct Block {
  unsigned char* memory;
  size_t size;
  unsigned char mark;
};

void Work(unsigned seed, bool comes_and_goes) {
  std::mt19937 random(seed);
  std::vector<Block> blocks;
  for (int round = 0; !stop.load(std::memory_order_relaxed); ++round) {
    if (comes_and_goes && round == 200) break;
    if (blocks.size() < 16 || (blocks.size() < 32 && random() % 2 == 0)) {
      const size_t size = 16 + random() % 300;
      const auto mark = static_cast<unsigned char>(random());
      auto* const memory = static_cast<unsigned char*>(malloc(size));
      memset(memory, mark, size);
      blocks.push_back({memory, size, mark});
    } else {
      Block& block = blocks[random() % blocks.size()];
      for (size_t i = 0; i < block.size; i += 61) {
        if (block.memory[i] != block.mark) ++damaged;
      }
      free(block.memory);
      block = blocks.back();
      blocks.pop_back();
    }
    operations.fetch_add(1, std::memory_order_relaxed);
    // Most threads of a service wait.
    if (round % 8 == 0) poll(nullptr, 0, 1 + static_cast<int>(random() % 20));
  }
  for (const Block& block : blocks) free(block.memory);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? atoi(argv[1]) : 100;
  const int seconds = argc > 2 ? atoi(argv[2]) : 10;
  const size_t ballast = argc > 3 ? strtoul(argv[3], nullptr, 10) << 20 : 0;
  if (ballast > 0) memset(malloc(ballast), 1, ballast);
  std::vector<std::thread> crowd;
  for (int i = 0; i < threads; ++i) {
    crowd.emplace_back([i] {
      if (i % 10 != 0) return Work(static_cast<unsigned>(i), false);
      // Starts threads that end.
      for (unsigned k = 0; !stop; ++k) {
        std::thread(Work, static_cast<unsigned>(i) * 100'000 + k, true).join();
      }
    });
  }
  puts("ready");
  fflush(stdout);
  for (int i = 0; i < seconds * 10 && !stop; ++i) {
    pollfd input = {.fd = 0, .events = POLLIN, .revents = 0};
    // "end" on stdin, or its closing.
    if (poll(&input, 1, 100) > 0) break;
  }
  stop = true;
  for (std::thread& thread : crowd) thread.join();
  printf("%s %llu\n", damaged == 0 ? "ok" : "damaged",
         static_cast<unsigned long long>(operations.load()));
  return damaged == 0 ? 0 : 1;
}
