// A set of address ranges: memory that a search for references passes over.
//
// Ranges are added in any order, then Build sorts and joins them. Memory is one mapping that grows.
// Not thread-safe.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>

#include "lib/base/syscall.h"

namespace heapflare::recorder {

class RangeSet {
 public:
  struct Range {
    uint64_t start;
    uint64_t limit;
  };

  RangeSet() = default;
  ~RangeSet() { Release(); }
  RangeSet(const RangeSet&) = delete;
  RangeSet& operator=(const RangeSet&) = delete;

  // Room for so many ranges. False: no memory.
  bool Reserve(uint64_t capacity) {
    Release();
    void* const memory = base::Map(nullptr, capacity * sizeof(Range), PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
    if (memory == nullptr) return false;
    ranges_ = static_cast<Range*>(memory);
    capacity_ = capacity;
    return true;
  }
  void Release() {
    if (ranges_ != nullptr) base::Unmap(ranges_, capacity_ * sizeof(Range));
    ranges_ = nullptr;
    count_ = capacity_ = 0;
  }

  // Neighbours that come in order are joined. False: it is full.
  bool Add(uint64_t start, uint64_t limit) {
    if (start >= limit) return true;
    if (count_ > 0 && ranges_[count_ - 1].start <= start && start <= ranges_[count_ - 1].limit) {
      ranges_[count_ - 1].limit = std::max(ranges_[count_ - 1].limit, limit);
      return true;
    }
    if (count_ == capacity_) return false;
    ranges_[count_++] = {start, limit};
    return true;
  }

  void Build() {
    std::sort(ranges_, ranges_ + count_,
              [](const Range& a, const Range& b) { return a.start < b.start; });
    uint64_t kept = 0;
    for (uint64_t i = 0; i < count_; ++i) {
      if (kept > 0 && ranges_[i].start <= ranges_[kept - 1].limit) {
        ranges_[kept - 1].limit = std::max(ranges_[kept - 1].limit, ranges_[i].limit);
      } else {
        ranges_[kept++] = ranges_[i];
      }
    }
    count_ = kept;
  }

  // Calls visit(start, limit) for the parts of [start, limit) that are not in the set.
  template <typename Visit>
  void ForEachOutside(uint64_t start, uint64_t limit, Visit visit) const {
    const Range* const first = ranges_;
    const Range* const end = first + count_;
    const Range* range = std::upper_bound(
        first, end, start, [](uint64_t at, const Range& other) { return at < other.limit; });
    for (; start < limit; ++range) {
      const uint64_t stop = range == end ? limit : std::min(limit, range->start);
      if (start < stop) visit(start, stop);
      if (range == end) return;
      start = std::max(start, range->limit);
    }
  }

  uint64_t memory_start() const { return reinterpret_cast<uint64_t>(ranges_); }
  uint64_t memory_bytes() const { return capacity_ * sizeof(Range); }

 private:
  Range* ranges_ = nullptr;
  uint64_t count_ = 0;
  uint64_t capacity_ = 0;
};

}  // namespace heapflare::recorder
