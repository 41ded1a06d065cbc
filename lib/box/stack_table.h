// The distinct stacks of a box: turns the program counters of a walk into the index of a Stack
// record.
//
// Lock-free and append-only. Finding is by private hash tables of indexes, which the box does not
// contain: only the writer needs them. Two threads that meet the same new stack at once may both
// write a record; one of them wins the index and the other record stays without counts, which
// readers skip. Equality is by the 64-bit hash of the locations and the depth: with 32,000 stacks
// two different ones meet with a probability of 3e-11.
#pragma once

#include <cstdint>

#include "lib/box/mapping.h"

namespace heapflare::box {

// The index of the module, plus one, that holds `pc` now; 0 if that is not known (yet).
using FindModule = uint32_t (*)(uint64_t pc);
// kGone: the location's module is not what is mapped there any more, or it has none and cannot be
// given one any more; no new stack may use it. kStays: its module is never unloaded.
enum class Standing { kGone, kHere, kStays };
using CheckLocation = Standing (*)(uint32_t location, uint32_t module_plus_one);

// The record that stands for all stacks without one of their own.
inline constexpr uint32_t kOtherStack = 0;

class StackTable {
 public:
  // Takes private memory in one anonymous mapping, and writes the "other" stack. 0 or negative
  // errno.
  int Attach(Mapping* mapping, FindModule find_module, CheckLocation check_location = nullptr);
  void Detach();

  // `frames`: `depth` return addresses, leaf first; overwritten. Flags as StackFlags. `key`: a hash of
  // all these and of which modules are loaded, by which a stack that was met before is found at once;
  // 0: none. kOtherStack when there is no room. Async-signal-safe.
  uint32_t Intern(uint64_t* frames, uint32_t depth, uint32_t flags, uint64_t key = 0);

  // Books one sample: in the stack's counters and in the tally of this number, modulo kTallies.
  void AddAllocated(uint32_t stack, uint64_t weight, uint64_t weighted_bytes, uint32_t tally = 0);
  void AddFreed(uint32_t stack, uint64_t weight, uint64_t weighted_bytes, uint32_t tally = 0);

 private:
  static constexpr uint32_t kNoLocation = ~uint32_t{0};
  // What was found out about one stack's modules.
  struct Checked {
    uint32_t module;  // plus one; the one that was checked last
    bool lasting;     // none of them can go away
  };
  static uint64_t PrivateBytes(uint64_t location_slots, uint64_t stack_slots);
  uint32_t InternFrames(uint64_t* frames, uint32_t depth, uint32_t flags, Checked* checked);
  uint32_t InternLocation(uint64_t pc, Checked* checked);
  bool IsCurrent(uint32_t location, Checked* checked) const;
  uint32_t AppendLocation(uint64_t pc, uint32_t module_plus_one);
  uint32_t AppendStack(const uint64_t* locations, uint32_t depth, uint32_t flags, uint64_t hash);

  Mapping* mapping_ = nullptr;
  FindModule find_module_ = nullptr;
  CheckLocation check_location_ = nullptr;
  Location* locations_ = nullptr;
  Stack* stacks_ = nullptr;
  uint32_t* frames_ = nullptr;
  // Open addressing, index + 1, power-of-two sizes of at least twice the records.
  uint32_t* location_index_ = nullptr;
  uint32_t* stack_index_ = nullptr;
  uint64_t location_mask_ = 0;
  uint64_t stack_mask_ = 0;
  // The stacks met last: the key's upper bits, and the index in the lower kIndexBits. Slots by the
  // key's lower bits.
  static constexpr int kIndexBits = 24;
  static constexpr uint64_t kMemoSlots = 1 << 14;
  uint64_t* memo_ = nullptr;
};

}  // namespace heapflare::box
