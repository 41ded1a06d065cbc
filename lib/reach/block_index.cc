#include "lib/reach/block_index.h"

#include <errno.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "lib/base/syscall.h"

namespace heapflare::reach {
namespace {

constexpr uint64_t Bytes(int bits) { return (uint64_t{1} << bits) / 8; }

}  // namespace

int BlockIndex::Reserve(uint64_t capacity) {
  Release();
  if (capacity >= kNone) return -E2BIG;
  const uint64_t bytes = capacity * sizeof(Block) + Bytes(kPageBits) + Bytes(kLargeBits);
  void* const memory = base::Map(nullptr, bytes, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
  if (memory == nullptr) return -ENOMEM;
  blocks_ = static_cast<Block*>(memory);
  pages_ = reinterpret_cast<uint64_t*>(blocks_ + capacity);
  large_ = pages_ + Bytes(kPageBits) / sizeof(uint64_t);
  bytes_ = bytes;
  capacity_ = capacity;
  return 0;
}

bool BlockIndex::Add(uint64_t address, uint64_t size, uint32_t id) {
  if (count_ >= capacity_) return false;
  blocks_[count_++] = {.address = address & kAddressMask, .size = size, .id = id};
  return true;
}

void BlockIndex::Build() {
  memset(pages_, 0, Bytes(kPageBits) + Bytes(kLargeBits));
  any_large_ = false;
  first_ = span_ = 0;
  if (count_ == 0) {
    // No word is above it.
    first_ = kAddressMask + 1;
    return;
  }
  std::sort(blocks_, blocks_ + count_,
            [](const Block& a, const Block& b) { return a.address < b.address; });
  uint64_t end = 0;
  for (uint32_t i = 0; i < count_; ++i) {
    end = std::max(end, blocks_[i].address + blocks_[i].size);
    Mark(blocks_[i]);
  }
  first_ = blocks_[0].address;
  span_ = end - first_;
}

void BlockIndex::Mark(const Block& block) {
  const bool large = block.size > kLargeBlock;
  const int shift = large ? kLargeShift : kPageShift;
  const int bits = large ? kLargeBits : kPageBits;
  uint64_t* const filter = large ? large_ : pages_;
  any_large_ = any_large_ || large;
  const uint64_t first = block.address >> shift;
  // The one past the end counts.
  const uint64_t last = (block.address + block.size) >> shift;
  if (last - first >= uint64_t{1} << bits) {
    memset(filter, 0xff, Bytes(bits));
    return;
  }
  for (uint64_t unit = first; unit <= last; ++unit) {
    const uint64_t bit = Hash(unit, bits);
    filter[bit / 64] |= uint64_t{1} << (bit % 64);
  }
}

void BlockIndex::Release() {
  if (blocks_ != nullptr) base::Unmap(blocks_, bytes_);
  blocks_ = nullptr;
  bytes_ = capacity_ = 0;
  count_ = 0;
  first_ = kAddressMask + 1;
  span_ = 0;
}

uint32_t BlockIndex::Search(uint64_t address) const {
  // The last block that does not start above.
  const Block* from = blocks_;
  for (uint64_t left = count_; left > 1;) {
    const uint64_t half = left / 2;
    if (from[half].address <= address) from += half;
    left -= half;
  }
  if (address - from->address > from->size) return kNone;
  return static_cast<uint32_t>(from - blocks_);
}

}  // namespace heapflare::reach
