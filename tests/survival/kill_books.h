// The books that kill_workload keeps of its own allocations, in a file of its own that outlives its
// SIGKILL as the box does. kill_random compares the two.
//
// Each thread has a lane with a sequence number: odd while an operation is under way. The totals of
// a lane are those of its completed operations; of the one under way nobody can say how far the
// recorder had got, so every total of the box lies in [books, books + what is under way].
//
// With HEAPFLARE_SAMPLE_INTERVAL=1 every allocation is recorded, so these bounds are exact. Numbers
// are little-endian; layout is that of this compiler for both programs.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace kill_test {

// Functions that allocate; a stack in the box belongs to the one that its leaf lies in.
inline constexpr uint32_t kSites = 8;
inline constexpr uint32_t kPluginSite = kSites - 1;  // in a library that comes and goes
inline constexpr uint32_t kLanes = 8;
inline constexpr uint64_t kBooksMagic = 0x31534b4f4f424b48;

struct Totals {
  std::atomic<uint64_t> allocated_objects;
  std::atomic<uint64_t> allocated_bytes;
  std::atomic<uint64_t> freed_objects;
  std::atomic<uint64_t> freed_bytes;
};

// One operation: frees a block of one site (if any), allocates one of another (if any).
struct Operation {
  bool allocates = false;
  bool frees = false;
  uint32_t site = 0;
  uint32_t freed_site = 0;
  uint64_t bytes = 0;
  uint64_t freed_bytes = 0;
};

// Written by one thread, read after its death.
struct alignas(64) Lane {
  std::atomic<uint64_t> sequence;
  Operation now;
  Totals totals[kSites];

  void Begin(const Operation& operation) {
    now = operation;
    sequence.store(sequence.load(std::memory_order_relaxed) + 1, std::memory_order_seq_cst);
  }
  void End() {
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (now.allocates) {
      Add(totals[now.site].allocated_objects, 1);
      Add(totals[now.site].allocated_bytes, now.bytes);
    }
    if (now.frees) {
      Add(totals[now.freed_site].freed_objects, 1);
      Add(totals[now.freed_site].freed_bytes, now.freed_bytes);
    }
    sequence.store(sequence.load(std::memory_order_relaxed) + 1, std::memory_order_seq_cst);
  }
  // It failed, and changed nothing.
  void Cancel() {
    sequence.store(sequence.load(std::memory_order_relaxed) + 1, std::memory_order_seq_cst);
  }

 private:
  // No read-modify-write is needed with one writer.
  static void Add(std::atomic<uint64_t>& total, uint64_t more) {
    total.store(total.load(std::memory_order_relaxed) + more, std::memory_order_release);
  }
};

struct Books {
  std::atomic<uint64_t> magic;  // last: now it can be read
  struct Site {
    uint64_t start;  // of the function's code
    uint64_t bytes;
  } sites[kSites];
  std::atomic<uint64_t> ready;  // threads at work
  Lane lanes[kLanes];
};

}  // namespace kill_test
