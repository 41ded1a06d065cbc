// What every box promises at every instant of its process's life: the invariants of lib/box/format.h,
// checked on the bytes of a file as a reader finds them after SIGKILL.
//
// Stricter than the reader, which skips what makes no sense: here, whatever is published must make
// sense. What a kill may leave half done (an operation in flight) is returned as a difference, for
// the caller to compare with the operations that it knows of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lib/box/format.h"
#include "lib/box/reader.h"
#include "lib/box/totals.h"

namespace heapflare::test {

// Sums in the box's units: objects in 1/65536, bytes in 1/256.
struct Sums {
  uint64_t allocated_objects = 0;
  uint64_t allocated_bytes = 0;
  uint64_t freed_objects = 0;
  uint64_t freed_bytes = 0;

  friend bool operator==(const Sums&, const Sums&) = default;
};

// What of a stack never changes once it is published.
struct Shape {
  uint32_t flags = 0;
  std::vector<uint64_t> pcs;

  friend bool operator==(const Shape&, const Shape&) = default;
};

// What a box says, in a form that two instants can be compared in.
struct BoxState {
  bool open = false;  // false: State::kStarting, and nothing else is told
  box::Header header = {};
  box::Totals totals;
  std::map<uint64_t, Sums> stacks;          // by index; published ones
  std::map<uint64_t, Shape> shapes;         // of the same stacks
  std::map<uint64_t, box::Sample> samples;  // by address
  uint64_t modules = 0;
  uint64_t locations = 0;                // published
  uint64_t placed = 0;                   // of them, with a module
  uint64_t truncated_or_incomplete = 0;  // stacks
};

// How far the three accounts of a box (stacks' counters, samples, the header's sums) disagree.
struct Disagreement {
  int stacks = 0;           // stacks whose live counters are not the sum of their samples
  uint64_t objects = 0;     // sum of the absolute differences, whole objects
  uint64_t bytes = 0;       // the same, whole bytes
  uint64_t header = 0;      // the header's sums against the stacks', whole bytes
  uint64_t live_count = 0;  // the header's live samples against the published samples
};

using Faults = std::vector<std::string>;

// Reads `bytes` of a box. Every broken invariant is a line in `faults`. A box that is still
// starting is no fault, and not open.
BoxState CheckBox(const std::byte* data, size_t bytes, Faults* faults);

// The profile that `heapflare dump` would write of it, held to tests/support/heap_profile.py's rules.
void CheckProfile(const std::byte* data, size_t bytes, Faults* faults);

Disagreement Compare(const BoxState& state);

// Holds a state to one of the same box before it: sums only grow, and what is published stays.
void CheckOrder(const BoxState& before, const BoxState& after, Faults* faults);

// Samples of a state in the course of an operation.
struct Passing {
  int strange = 0;  // unlike those before and after it
  int missing = 0;  // though they are the same before and after it
};
Passing CompareSamples(const BoxState& before, const BoxState& state, const BoxState& after);

// The whole file; empty if it cannot be read.
std::vector<std::byte> ReadBytes(const std::string& path);

}  // namespace heapflare::test
