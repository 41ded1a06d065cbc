// Searches this process's memory for references to blocks, and says which have none.
//
// A block is reachable if a word in memory, in a thread's registers or in the kernel refers to it,
// unless that word lies in a block that is not reachable itself. Only the blocks that were asked for
// are known: all other memory, the service's other blocks too, counts as in use. So what is called
// unreachable has no reference in any memory that was read; what is lost together with an unknown
// block is not found.
//
// Runs in a forked copy, which nobody changes (and which gives memory back as it is searched, so
// that the service's stores need not copy it), or over memory in use, where a reference that moves
// meanwhile can be missed. Without libc, allocating nothing; what it finds is written to memory that
// its caller shares. Never faults on what it reads.
#pragma once

#include <atomic>
#include <cstdint>

#include "lib/reach/block_index.h"
#include "lib/reach/memory_map.h"
#include "lib/reach/memory_reader.h"
#include "lib/reach/stopped_threads.h"

namespace heapflare::reach {

enum class Verdict : uint8_t { kReachable = 0, kUnreachable = 1, kIndirect = 2 };

struct ScanResult {
  std::atomic<uint32_t> done;  // 1: everything below and the verdicts are valid
  int error;                   // negative errno: the mappings could not be listed
  bool kernel_seen;            // epoll and timers could be asked
  uint64_t bytes_scanned;
  uint64_t bytes_unread;  // protected, gone, in swap, of a device
  uint64_t nanoseconds;
};

struct ScanOptions {
  const BlockIndex* blocks = nullptr;
  StoppedThreads threads = {};
  // Words from elsewhere that may be references.
  const uint64_t* words = nullptr;
  uint64_t word_count = 0;
  // Whose descriptors and timers are asked for, except in this thread's table.
  int process = 0;
  int spared_thread = 0;
  // The memory is a copy that nobody else uses.
  bool copy = false;
  // The searcher's own memory; at most kMostOwn.
  struct Own {
    uint64_t start;
    uint64_t bytes;
  };
  const Own* own = nullptr;
  uint32_t own_count = 0;
  // Of kScanWorkspace bytes plus a byte and a word for each block, zeroed, its own memory.
  void* workspace = nullptr;
  // Out: one verdict for each block, in the order of the index.
  Verdict* verdicts = nullptr;
  ScanResult* result = nullptr;
};

inline constexpr uint32_t kMostOwn = 24;
// Buffers, and room for the references between blocks; where there are more, their targets count as
// reachable.
inline constexpr uint64_t kScanWorkspace = uint64_t{8} << 20;

constexpr uint64_t ScanWorkspaceBytes(uint64_t blocks) {
  return kScanWorkspace + blocks * (sizeof(uint32_t) + 1) + 64;
}

void Scan(const ScanOptions& options);

// Memory that the calling process alone holds, besides its page tables: what a forked copy costs.
// From /proc/PID/smaps_rollup and status; 0 where that cannot be read.
uint64_t PrivateBytes(int process);
// Bytes of page tables of the calling process: what a copy of it needs at once.
uint64_t PageTableBytes();

}  // namespace heapflare::reach
