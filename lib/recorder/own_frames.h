// Which frames of a stack are the recorder's own, to be left out.
//
// While the next allocator runs, the slow part of a hook is on the stack; and what the allocator calls
// can allocate in its turn, operator new for one: its new_handler, and the exception that it throws.
// So the functions that call the next allocator stand in a section of their own, whose bounds the
// linker knows. A signal handler that allocates can have interrupted us anywhere: in a library of its
// own, all code is known to be ours.
#pragma once

#include <cstdint>

// Of a function that calls the next allocator; templates and inline functions only, since a section
// holds one kind.
#define HEAPFLARE_CALLS_ALLOCATOR gnu::section("heapflare_calling"), gnu::noinline

namespace heapflare::recorder {

// Empty until it is found.
struct OwnCode {
  uint64_t start;
  uint64_t bytes;
};
extern constinit OwnCode own_code __attribute__((visibility("hidden")));

void FindOwnCode();

inline bool IsOwnFrame(uint64_t return_address) {
  return return_address - own_code.start < own_code.bytes;
}

}  // namespace heapflare::recorder
