// resident_bench [COUNT [THREADS]]: what is resident with COUNT live blocks of 64 KiB, allocated by
// THREADS threads (1) that are all alive. Prints bytes: {"rss": ..., "active": ...}.
//
// The blocks are not touched, so that the heap itself weighs little beside the recorder. Not by
// calloc: glibc's clears two blocks of three here.
#include <condition_variable>
#include <mutex>
#include <thread>

#include "tests/bench/measure.h"
#include "tests/bench/proc_status.h"

using namespace heapflare::bench;

int main(int argc, char** argv) {
  const long count = Argument(argc, argv, 1, 16384);
  const long thread_count = std::max(1L, Argument(argc, argv, 2, 1));
  std::mutex mutex;
  std::condition_variable changed;
  long allocated = 0;
  bool measured = false;
  std::vector<std::thread> threads;
  for (long t = 0; t < thread_count; ++t) {
    threads.emplace_back([&, t] {
      for (long i = t; i < count; i += thread_count) {
        void* const block = malloc(64 << 10);
        if (block == nullptr) abort();
        Escape(block);
      }
      std::unique_lock lock(mutex);
      ++allocated;
      changed.notify_all();
      changed.wait(lock, [&] { return measured; });
    });
  }
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return allocated == thread_count; });
    printf("{\"rss\": %ld, \"active\": %d}\n", StatusBytes("VmRSS:"), heapflare_active());
    measured = true;
    changed.notify_all();
  }
  for (std::thread& thread : threads) thread.join();
}
