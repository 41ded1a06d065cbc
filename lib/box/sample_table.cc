#include "lib/box/sample_table.h"

#include <errno.h>
#include <sys/mman.h>

#include <algorithm>

#include "lib/base/one_thread.h"
#include "lib/base/syscall.h"

namespace heapflare::box {
namespace {

// Fibonacci hashing; the low four bits of an address are the same for nearly all blocks.
uint64_t Home(uint64_t address, uint64_t slots) {
  const uint64_t hash = (address >> 4) * 0x9e3779b97f4a7c15;
  return static_cast<uint64_t>((static_cast<unsigned __int128>(hash) * slots) >> 64);
}

// A line that another processor wrote last then comes once, not once to be read and once more to be
// written. (GCC does this only where it may assume an instruction that all processors have.)
void PrefetchToWrite(const void* place) {
#if defined(__x86_64__)
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(place)));
#else
  __builtin_prefetch(place, 1);
#endif
}

}  // namespace

int SampleTable::Attach(Mapping* mapping) {
  const uint64_t unit = mapping->header().regions[kSamples].capacity / kSampleShares;
  capacity_ = unit * kSampleShares;
  void* reach = base::Map(nullptr, capacity_, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
  if (reach == nullptr) return -ENOMEM;
  mapping_ = mapping;
  reach_ = static_cast<uint8_t*>(reach);
  uint64_t at = 0;
  uint64_t slots = unit;
  for (Level& level : levels_) {
    level = {.slots = mapping->Records<Sample>(kSamples) + at,
             .reach = reach_ + at,
             .slot_count = slots};
    at += slots;
    slots *= 4;
  }
  return Raise(0) ? 0 : -ENOSPC;
}

void SampleTable::Detach() {
  if (reach_ != nullptr) base::Unmap(reach_, capacity_);
  *this = SampleTable();
}

uint64_t SampleTable::LiveIn(uint32_t level) const {
  int64_t sum = 0;
  for (const Counter& counter : counters_) {
    sum += Atomic(const_cast<int64_t&>(counter.live[level])).load(std::memory_order_relaxed);
  }
  // Read while others count, a removal may be seen before its insertion.
  return static_cast<uint64_t>(std::max<int64_t>(sum, 0));
}

uint64_t SampleTable::live() const {
  uint64_t sum = 0;
  for (uint32_t level = 0; level < kSampleLevels; ++level) sum += LiveIn(level);
  return sum;
}

// Puts one more level than `levels` into use, unless another thread did.
bool SampleTable::Raise(uint32_t levels) {
  if (levels >= kSampleLevels) return false;
  const Level& next = levels_[levels];
  const auto end = static_cast<uint64_t>(next.slots + next.slot_count - levels_[0].slots);
  if (!mapping_->Reserve(kSamples, end * sizeof(Sample))) return false;
  Atomic(mapping_->header().sample_levels)
      .compare_exchange_strong(levels, levels + 1, std::memory_order_release);
  return true;
}

SampleTable::Room SampleTable::Insert(const Sample& sample, uint32_t counter) {
  constexpr uint32_t kFar = 4;
  const auto in_use = Atomic(mapping_->header().sample_levels);
  for (;;) {
    const uint32_t levels = in_use.load(std::memory_order_acquire);
    for (uint32_t i = levels; i-- > 0;) {
      const uint32_t distance = InsertAt(i, sample, counter);
      if (distance < kFar) return Room::kPlenty;
      if (distance == kSampleWindow) continue;
      const uint32_t top = levels - 1;
      if (LiveIn(top) >= levels_[top].slot_count / 10 * 7) Raise(levels);
      return Room::kLess;
    }
    if (!Raise(levels)) return Room::kNone;
  }
}

uint32_t SampleTable::InsertAt(uint32_t index, const Sample& sample, uint32_t counter) {
  Level& level = levels_[index];
  const uint64_t home = Home(sample.address, level.slot_count);
  uint64_t at = home;
  for (uint32_t distance = 0; distance < kSampleWindow; ++distance) {
    Sample& slot = level.slots[at];
    const auto word = Atomic(slot.address);
    uint64_t free = 0;
    if (word.load(std::memory_order_relaxed) == 0 &&
        base::SwapShared(slot.address, &free, kSampleClaimed)) {
      StoreShared(sample, &slot);
      // Before the address: who frees it must find it.
      const auto reach = Atomic(level.reach[home]);
      uint8_t seen = reach.load(std::memory_order_relaxed);
      while (seen < distance + 1 &&
             !reach.compare_exchange_weak(seen, static_cast<uint8_t>(distance + 1),
                                          std::memory_order_relaxed)) {
      }
      word.store(sample.address, std::memory_order_release);
      base::AddShared(counters_[counter % kCounters].live[index], int64_t{1});
      return distance;
    }
    if (++at == level.slot_count) at = 0;
  }
  return kSampleWindow;
}

void SampleTable::Prefetch(uint64_t address) const {
  const uint32_t levels = Atomic(mapping_->header().sample_levels).load(std::memory_order_relaxed);
  for (uint32_t i = levels; i-- > 0;) {
    const Level& level = levels_[i];
    const uint64_t home = Home(address, level.slot_count);
    __builtin_prefetch(&level.reach[home]);
    PrefetchToWrite(&level.slots[home]);
  }
}

SampleTable::Found SampleTable::Find(uint64_t address) const {
  // Marks of slots, not addresses: free(nullptr) would find the next free slot.
  if (address <= kSampleClaimed) return {nullptr, 0};
  const uint32_t levels = Atomic(mapping_->header().sample_levels).load(std::memory_order_acquire);
  for (uint32_t i = levels; i-- > 0;) {
    const Level& level = levels_[i];
    const uint64_t home = Home(address, level.slot_count);
    const uint8_t reach = Atomic(level.reach[home]).load(std::memory_order_relaxed);
    uint64_t at = home;
    for (uint32_t distance = 0; distance < reach; ++distance) {
      Sample& slot = level.slots[at];
      if (Atomic(slot.address).load(std::memory_order_acquire) == address) return {&slot, i};
      if (++at == level.slot_count) at = 0;
    }
  }
  return {nullptr, 0};
}

bool SampleTable::AddMark(uint64_t address, uint64_t mark) {
  const Found found = Find(address);
  if (found.slot == nullptr) return false;
  Atomic(found.slot->size_and_marks).fetch_or(mark, std::memory_order_relaxed);
  return true;
}

bool SampleTable::Remove(uint64_t address, Sample* sample, uint32_t counter) {
  const Found found = Find(address);
  if (found.slot == nullptr) return false;
  // Others try to claim the slot meanwhile: its address is not read plainly.
  LoadShared(found.slot, sample);
  sample->address = address;
  uint64_t expected = address;
  // Fails only when the program frees the block twice at once.
  if (!base::SwapShared(found.slot->address, &expected, uint64_t{0})) return false;
  base::AddShared(counters_[counter % kCounters].live[found.level], int64_t{-1});
  return true;
}

uint64_t SampleTable::slots_in_use() const {
  const uint32_t levels = std::min(
      Atomic(mapping_->header().sample_levels).load(std::memory_order_acquire), kSampleLevels);
  uint64_t slots = 0;
  for (uint32_t i = 0; i < levels; ++i) slots += levels_[i].slot_count;
  return slots;
}

uint32_t SampleTable::Mark(uint64_t slot, uint64_t address, uint32_t born_tenths, bool unreachable,
                           bool indirect, uint32_t needed) {
  Sample& record = levels_[0].slots[slot];
  const auto is_the_same = [&](Sample* sample) {
    LoadShared(&record, sample);
    return sample->address == address && sample->born_tenths == born_tenths &&
           Load(record.address, std::memory_order_relaxed) == address;
  };
  Sample sample = {};
  if (!is_the_same(&sample)) return 0;
  const uint32_t passes = unreachable ? UnreachablePasses(sample) + 1 : 0;
  uint64_t marked = WithPasses(sample.size_and_marks & ~kMarkIndirect, passes);
  if (indirect) marked |= kMarkIndirect;
  if (unreachable && passes >= needed) marked |= kMarkCalled;
  const auto word = Atomic(record.size_and_marks);
  uint64_t before = sample.size_and_marks;
  if (!word.compare_exchange_strong(before, marked)) return 0;
  Sample after = {};
  if (is_the_same(&after)) return passes;
  word.compare_exchange_strong(marked, sample.size_and_marks);
  return 0;
}

}  // namespace heapflare::box
