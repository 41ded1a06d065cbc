// What kill_steps and its victim, kill_steps_victim, share: markers and a page of memory.
//
// The victim stops itself by a breakpoint instruction before and after each operation; the number of
// the marker is in the first register. The page, a file that both map, tells the victim what its
// signal handler shall do, and the driver what the victim did.
#pragma once

#include <atomic>
#include <cstdint>

namespace kill_test {

enum Marker : uint64_t {
  kBefore = 0x4b01,   // the operation comes next
  kAfter = 0x4b02,    // it is done
  kHandled = 0x4b03,  // the signal handler did its work and returns
};

enum class Handler : uint64_t {
  kAllocate = 0,  // allocates and frees, each of which is sampled
  kFork = 1,      // forks; the child finishes the operation, allocates, and kills itself
  kJump = 2,      // siglongjmp out of the operation
};

struct Page {
  // By the driver.
  std::atomic<Handler> handler;

  // By the victim. What the functions of the next allocator are, which are not stepped through.
  std::atomic<uint64_t> allocator[8];
  // What the operation between two markers adds to the box; unknown to the victim when `exact` is 0
  // (the loader allocates too).
  std::atomic<uint64_t> exact;
  std::atomic<uint64_t> allocated_objects;
  std::atomic<uint64_t> allocated_bytes;
  std::atomic<uint64_t> freed_objects;
  std::atomic<uint64_t> freed_bytes;
  // By the handler, since the start.
  std::atomic<uint64_t> handler_allocated_objects;
  std::atomic<uint64_t> handler_allocated_bytes;
  std::atomic<uint64_t> handler_freed_objects;
  std::atomic<uint64_t> handler_freed_bytes;
  std::atomic<uint64_t> children_forked;
  std::atomic<uint64_t> children_finished;  // ended as they should: by their own SIGKILL
  std::atomic<uint64_t> child_status;       // of the last one that did not
};

}  // namespace kill_test
