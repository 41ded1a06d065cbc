#include "lib/box/stack_table.h"

#include <errno.h>
#include <sys/mman.h>

#include <bit>

#include "lib/base/one_thread.h"
#include "lib/base/syscall.h"

namespace heapflare::box {
namespace {

// The finalizer of MurmurHash3 (Appleby, public domain): every input bit moves every output bit.
uint64_t Mix(uint64_t value) {
  value ^= value >> 33;
  value *= 0xff51afd7ed558ccd;
  value ^= value >> 33;
  value *= 0xc4ceb9fe1a85ec53;
  return value ^ (value >> 33);
}

uint64_t HashFrames(const uint64_t* locations, uint32_t depth, uint32_t flags) {
  uint64_t hash = Mix(depth | static_cast<uint64_t>(flags) << 32);
  for (uint32_t i = 0; i < depth; ++i) hash = Mix(hash ^ locations[i]) + 0x9e3779b97f4a7c15;
  return hash;
}

}  // namespace

int StackTable::Attach(Mapping* mapping, FindModule find_module, CheckLocation check_location) {
  const Region* regions = mapping->header().regions;
  const uint64_t location_slots = std::bit_ceil(regions[kLocations].capacity * 2);
  const uint64_t stack_slots = std::bit_ceil(regions[kStacks].capacity * 2);
  void* memory = base::Map(nullptr, PrivateBytes(location_slots, stack_slots),
                           PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
  if (memory == nullptr) return -ENOMEM;
  mapping_ = mapping;
  find_module_ = find_module;
  check_location_ = check_location;
  locations_ = mapping->Records<Location>(kLocations);
  stacks_ = mapping->Records<Stack>(kStacks);
  frames_ = mapping->Records<uint32_t>(kFrames);
  memo_ = static_cast<uint64_t*>(memory);
  location_index_ = reinterpret_cast<uint32_t*>(memo_ + kMemoSlots);
  stack_index_ = location_index_ + location_slots;
  location_mask_ = location_slots - 1;
  stack_mask_ = stack_slots - 1;
  return AppendStack(nullptr, 0, kStackOther, 0) == kOtherStack ? 0 : -ENOSPC;
}

void StackTable::Detach() {
  if (memo_ != nullptr) base::Unmap(memo_, PrivateBytes(location_mask_ + 1, stack_mask_ + 1));
  *this = StackTable();
}

uint64_t StackTable::PrivateBytes(uint64_t location_slots, uint64_t stack_slots) {
  return kMemoSlots * sizeof(uint64_t) + (location_slots + stack_slots) * sizeof(uint32_t);
}

uint32_t StackTable::Intern(uint64_t* frames, uint32_t depth, uint32_t flags, uint64_t key) {
  Checked checked = {.module = 0, .lasting = true};
  if (key == 0) return InternFrames(frames, depth, flags, &checked);
  constexpr uint64_t kIndexMask = (uint64_t{1} << kIndexBits) - 1;
  static_assert(kMemoSlots <= kIndexMask + 1,
                "or the slot would not stand for the key's lower bits");
  const auto memo = Atomic(memo_[key % kMemoSlots]);
  const uint64_t met = memo.load(std::memory_order_relaxed);
  if (met != 0 && (met ^ key) <= kIndexMask) return static_cast<uint32_t>(met & kIndexMask);
  const uint32_t index = InternFrames(frames, depth, flags, &checked);
  // A stack with code that can go away is looked at frame by frame, every time.
  if (checked.lasting && index != kOtherStack && index <= kIndexMask) {
    memo.store((key & ~kIndexMask) | index, std::memory_order_relaxed);
  }
  return index;
}

uint32_t StackTable::InternFrames(uint64_t* frames, uint32_t depth, uint32_t flags,
                                  Checked* checked) {
  for (uint32_t i = 0; i < depth; ++i) {
    const uint32_t location = InternLocation(frames[i], checked);
    if (location == kNoLocation) return kOtherStack;
    frames[i] = location;
  }
  const uint64_t hash = HashFrames(frames, depth, flags);
  uint32_t mine = kOtherStack;
  for (uint64_t at = hash & stack_mask_, tries = 0; tries <= stack_mask_;
       at = (at + 1) & stack_mask_, ++tries) {
    const auto entry = Atomic(stack_index_[at]);
    uint32_t index_plus_one = entry.load(std::memory_order_acquire);
    if (index_plus_one == 0) {
      if (mine == kOtherStack) mine = AppendStack(frames, depth, flags, hash);
      if (mine == kOtherStack) return kOtherStack;
      // On failure too the record that the entry leads to is read.
      if (entry.compare_exchange_strong(index_plus_one, mine + 1, std::memory_order_acq_rel,
                                        std::memory_order_acquire)) {
        return mine;
      }
    }
    const Stack& stack = stacks_[index_plus_one - 1];
    if (stack.hash == hash && stack.depth == depth + 1) return index_plus_one - 1;
  }
  return kOtherStack;
}

// A library that was unloaded may have made room for another one: its locations are not those of
// the newcomer.
bool StackTable::IsCurrent(uint32_t location, Checked* checked) const {
  const uint32_t module =
      Atomic(locations_[location].module_plus_one).load(std::memory_order_relaxed);
  if (module != 0) {
    if (module == checked->module) return true;
    uint32_t& state = mapping_->Records<Module>(kModules)[module - 1].state;
    if (Atomic(state).load(std::memory_order_relaxed) !=
        static_cast<uint32_t>(ModuleState::kLoaded)) {
      return false;
    }
  }
  const Standing standing =
      check_location_ != nullptr ? check_location_(location, module) : Standing::kStays;
  if (standing == Standing::kGone) return false;
  if (standing != Standing::kStays) checked->lasting = false;
  if (module != 0) checked->module = module;
  return true;
}

// One program counter can have a location for each module that was mapped there, one after the
// other: all are in the index, and at most one is current.
uint32_t StackTable::InternLocation(uint64_t pc, Checked* checked) {
  const uint64_t home = Mix(pc) & location_mask_;
  for (uint64_t at = home, tries = 0; tries <= location_mask_;
       at = (at + 1) & location_mask_, ++tries) {
    const uint32_t index_plus_one = Atomic(location_index_[at]).load(std::memory_order_acquire);
    if (index_plus_one == 0) break;
    const uint32_t location = index_plus_one - 1;
    if (locations_[location].pc == pc && IsCurrent(location, checked)) return location;
  }
  // The next time it will be checked.
  checked->lasting = false;
  // Finding the module may bring one back that was there before, with its locations.
  const uint32_t module = find_module_(pc);
  uint32_t mine = kNoLocation;
  for (uint64_t at = home, tries = 0; tries <= location_mask_;
       at = (at + 1) & location_mask_, ++tries) {
    const auto entry = Atomic(location_index_[at]);
    uint32_t index_plus_one = entry.load(std::memory_order_acquire);
    if (index_plus_one == 0) {
      if (mine == kNoLocation) mine = AppendLocation(pc, module);
      if (mine == kNoLocation) return kNoLocation;
      if (entry.compare_exchange_strong(index_plus_one, mine + 1, std::memory_order_acq_rel,
                                        std::memory_order_acquire)) {
        // One that gets its module later can meet another that had it from the beginning.
        if (module != 0) Atomic(locations_[mine].flags).store(0, std::memory_order_relaxed);
        return mine;
      }
    }
    Location& location = locations_[index_plus_one - 1];
    if (location.pc != pc) continue;
    const auto placed = Atomic(location.module_plus_one);
    uint32_t its_module = placed.load(std::memory_order_relaxed);
    if (its_module == 0) {
      if (!IsCurrent(index_plus_one - 1, checked)) continue;
      // Met by somebody who did not find its module.
      if (module != 0 && placed.compare_exchange_strong(its_module, module)) its_module = module;
    }
    if (its_module != module) continue;
    // Another thread met it at the same moment and was first: nothing refers to ours, so it is
    // taken back. (One address, one location: profile stores tell locations apart by it.)
    if (mine != kNoLocation) Atomic(locations_[mine].pc).store(0, std::memory_order_release);
    return index_plus_one - 1;
  }
  return kNoLocation;
}

uint32_t StackTable::AppendLocation(uint64_t pc, uint32_t module_plus_one) {
  uint64_t index = 0;
  if (!mapping_->Take(kLocations, 1, &index)) return kNoLocation;
  Location& location = locations_[index];
  Atomic(location.flags).store(kLocationMayBeTwin, std::memory_order_relaxed);
  Atomic(location.module_plus_one).store(module_plus_one, std::memory_order_relaxed);
  Atomic(location.pc).store(pc, std::memory_order_release);
  return static_cast<uint32_t>(index);
}

uint32_t StackTable::AppendStack(const uint64_t* locations, uint32_t depth, uint32_t flags,
                                 uint64_t hash) {
  uint64_t index = 0;
  uint64_t first_frame = 0;
  if (!mapping_->Take(kStacks, 1, &index)) return kOtherStack;
  if (depth > 0 && !mapping_->Take(kFrames, depth, &first_frame)) return kOtherStack;
  for (uint32_t i = 0; i < depth; ++i) {
    frames_[first_frame + i] = static_cast<uint32_t>(locations[i]);
  }
  Stack& stack = stacks_[index];
  stack.flags = flags;
  stack.first_frame = first_frame;
  stack.hash = hash;
  Atomic(stack.depth).store(depth + 1, std::memory_order_release);
  return static_cast<uint32_t>(index);
}

void StackTable::AddAllocated(uint32_t stack, uint64_t weight, uint64_t weighted_bytes,
                              uint32_t tally) {
  Tally& totals = mapping_->header().tallies[tally % kTallies];
  base::AddShared(stacks_[stack].allocated_objects, weight);
  base::AddShared(stacks_[stack].allocated_bytes, weighted_bytes);
  base::AddShared(totals.allocated_bytes, weighted_bytes);
  base::AddShared(totals.samples_taken, uint64_t{1});
}

void StackTable::AddFreed(uint32_t stack, uint64_t weight, uint64_t weighted_bytes,
                          uint32_t tally) {
  Tally& totals = mapping_->header().tallies[tally % kTallies];
  base::AddShared(stacks_[stack].freed_objects, weight);
  base::AddShared(stacks_[stack].freed_bytes, weighted_bytes);
  base::AddShared(totals.freed_bytes, weighted_bytes);
  base::AddShared(totals.samples_freed, uint64_t{1});
}

}  // namespace heapflare::box
