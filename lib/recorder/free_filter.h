// Tells in one load that an address carries no sample.
//
// A byte for every page, by the low bits of the page's number: how many live samples lie in pages
// with these bits. Zero means none, which ends the matter for nearly every free; else the sample
// table is asked. A count that reaches 255 stays there, so the answer errs only towards asking.
// Pages 2^22 apart share a byte: with 64 GiB of heap, four do. What of it is touched costs memory: a
// page for every 16 MiB of heap that holds a sample.
#pragma once

#include <atomic>
#include <cstdint>

namespace heapflare::recorder {

class FreeFilter {
 public:
  bool MayHold(const void* address) const {
    return counts_[Slot(address)].load(std::memory_order_relaxed) != 0;
  }

  // Add before the sample is findable, Drop after it no longer is.
  void Add(const void* address) {
    std::atomic<uint8_t>& count = counts_[Slot(address)];
    uint8_t now = count.load(std::memory_order_relaxed);
    while (now != kSticky && !count.compare_exchange_weak(now, static_cast<uint8_t>(now + 1),
                                                          std::memory_order_relaxed)) {
    }
  }
  void Drop(const void* address) {
    std::atomic<uint8_t>& count = counts_[Slot(address)];
    uint8_t now = count.load(std::memory_order_relaxed);
    while (now != kSticky && now != 0 &&
           !count.compare_exchange_weak(now, static_cast<uint8_t>(now - 1),
                                        std::memory_order_relaxed)) {
    }
  }

  // Before the first use: keeps the kernel from giving it huge pages, of which a few bytes are used.
  void Prepare();
  // Forgets everything and gives the memory back. In a forked child, where no other thread runs.
  void Clear();

 private:
  static constexpr int kPageBits = 12;
  static constexpr uint64_t kSlots = uint64_t{1} << 22;
  static constexpr uint8_t kSticky = 255;

  static uint64_t Slot(const void* address) {
    return (reinterpret_cast<uintptr_t>(address) >> kPageBits) & (kSlots - 1);
  }

  alignas(4096) std::atomic<uint8_t> counts_[kSlots] = {};
};

extern constinit FreeFilter free_filter __attribute__((visibility("hidden")));

}  // namespace heapflare::recorder
