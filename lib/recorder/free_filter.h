// Tells in one load that an address carries no sample.
//
// A slot for every page, by the low bits of the page's number: how many live samples lie in pages with
// these bits, and the exclusive or of where in their pages they lie. Zero means none, which ends the
// matter for nearly every free. One sample has a known place, which the address has or has not. Only
// otherwise is the sample table asked, at the price of several cache misses. A count that reaches its
// maximum stays there, so the answer errs only towards asking.
//
// Pages 2^21 apart share a slot, or more where the box is larger than the default: who keeps more
// samples has more heap. While less than one slot in twenty is in use by other pages, frees do not
// notice; that is a hundred thousand samples in the default box. What of the slots is touched costs
// memory: a page for every 8 MiB of heap that holds a sample.
#pragma once

#include <cstdint>

#include "lib/base/one_thread.h"

namespace heapflare::recorder {

class FreeFilter {
 public:
  static constexpr uint64_t kLeastSlots = uint64_t{1} << 21;

  // `slots`: kLeastSlots, zeroed.
  constexpr explicit FreeFilter(uint16_t* slots) : slots_(slots) {}
  FreeFilter(const FreeFilter&) = delete;
  FreeFilter& operator=(const FreeFilter&) = delete;

  // The fast path. False: there is no sample at `address`.
  bool MayHold(const void* address) const {
    return __atomic_load_n(&slots_[Index(address)], __ATOMIC_RELAXED) != 0;
  }
  // The same, more exactly.
  bool MayHoldAt(const void* address) const {
    const uint16_t slot = __atomic_load_n(&slots_[Index(address)], __ATOMIC_RELAXED);
    return Count(slot) > 1 || (Count(slot) == 1 && Places(slot) == Place(address));
  }

  // Add before the sample is findable, Drop after it no longer is.
  void Add(const void* address) { Change(address, 1); }
  void Drop(const void* address) { Change(address, -1); }

  // Before the first sample: makes it as large as a box of so many bytes wants it. `fill` adds, to the
  // filter that it is given, what was added before.
  void Prepare(uint64_t box_bytes, void (*fill)(FreeFilter* filter));
  // Forgets everything and gives the memory back. In a forked child, where no other thread runs.
  void Clear();

 private:
  static constexpr int kPageBits = 12;
  static constexpr uint64_t kMostSlots = uint64_t{1} << 26;
  static constexpr int kMostCount = 255;

  // A slot: the count above, the places below.
  static int Count(uint16_t slot) { return slot >> 8; }
  static uint8_t Places(uint16_t slot) { return static_cast<uint8_t>(slot); }
  // In units of the least alignment of blocks, of which a page has 256.
  static uint8_t Place(const void* address) {
    return static_cast<uint8_t>(reinterpret_cast<uintptr_t>(address) >> 4);
  }
  uint64_t Index(const void* address) const {
    return (reinterpret_cast<uintptr_t>(address) >> kPageBits) & mask_;
  }

  void Change(const void* address, int by) {
    uint16_t& slot = slots_[Index(address)];
    uint16_t now = __atomic_load_n(&slot, __ATOMIC_RELAXED);
    uint16_t then = 0;
    do {
      const int count = Count(now) + by;
      if (Count(now) == kMostCount || count < 0) return;
      then = static_cast<uint16_t>(count << 8 | (Places(now) ^ Place(address)));
    } while (!base::SwapShared(slot, &now, then));
  }

  // Plain numbers, used atomically.
  uint16_t* slots_;
  uint64_t mask_ = kLeastSlots - 1;
};

extern constinit FreeFilter free_filter __attribute__((visibility("hidden")));

}  // namespace heapflare::recorder
