// Which of a process's dumps stay when there are more than HEAPFLARE_KEEP: the latest always, the
// one with the largest live heap always, and of the others the youngest.
#pragma once

#include <cstdint>

namespace heapflare::recorder {

class Retention {
 public:
  static constexpr uint32_t kMaxKept = 1001;

  struct Kept {
    uint32_t number;
    uint64_t live_bytes;
    char reason[40];
  };

  // Adds a dump that was just written. True: `victim` is one too many and to be removed.
  bool Add(const Kept& dump, uint32_t keep, Kept* victim);
  void Clear() { count_ = 0; }

 private:
  Kept kept_[kMaxKept + 1] = {};  // oldest first
  uint32_t count_ = 0;
};

}  // namespace heapflare::recorder
