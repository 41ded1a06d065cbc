// Which of many blocks a word points into: what a search for references asks of every word that it
// reads.
//
// A word refers to a block if it is the address of one of its bytes or the one just past its end.
// Where another block starts there it is that one's, as in an array of blocks the end of one is the
// start of the next. The upper 16 bits do not count: pointers are tagged there (by the hardware on
// aarch64, by lock-free lists everywhere). What is tagged in the lowest bits points into the block
// all the same.
//
// Nearly all words are no pointers to a block. They are told by two tests that stay in the cache:
// whether the word lies between the first and the last block, and a bitmap over hashed pages.
//
// Memory is one mapping of its own, 24 bytes a block and 256 KiB. Reading is thread-safe once it is
// built. Allocates nothing else, faults on nothing.
#pragma once

#include <cstdint>

namespace heapflare::reach {

inline constexpr uint64_t kAddressMask = (uint64_t{1} << 48) - 1;

struct Block {
  uint64_t address;
  uint64_t size;  // 0 has one address, its own
  uint32_t id;    // the caller's
};

class BlockIndex {
 public:
  static constexpr uint32_t kNone = ~uint32_t{0};

  BlockIndex() = default;
  ~BlockIndex() { Release(); }
  BlockIndex(const BlockIndex&) = delete;
  BlockIndex& operator=(const BlockIndex&) = delete;

  // Room for so many blocks; drops what was there. 0 or negative errno.
  int Reserve(uint64_t capacity);
  // False: there is no more room.
  bool Add(uint64_t address, uint64_t size, uint32_t id);
  // Sorts them. Afterwards blocks are numbered by address.
  void Build();
  void Release();

  uint32_t count() const { return count_; }
  const Block& block(uint32_t number) const { return blocks_[number]; }

  // The number of the block that `word` refers to; kNone.
  uint32_t Find(uint64_t word) const {
    const uint64_t address = word & kAddressMask;
    if (address - first_ > span_ || !MayHold(address)) [[likely]] {
      return kNone;
    }
    return Search(address);
  }

  // Its memory, which holds the addresses of all blocks and must not be searched.
  uint64_t memory_start() const { return reinterpret_cast<uint64_t>(blocks_); }
  uint64_t memory_bytes() const { return bytes_; }

 private:
  // Pages, for all but the largest blocks, and larger units for these.
  static constexpr int kPageShift = 12;
  static constexpr int kLargeShift = 21;
  static constexpr uint64_t kLargeBlock = uint64_t{256} << 10;
  static constexpr int kPageBits = 21;
  static constexpr int kLargeBits = 13;

  static uint64_t Hash(uint64_t unit, int bits) {
    return (unit * 0x9e3779b97f4a7c15) >> (64 - bits);
  }
  static bool Test(const uint64_t* filter, uint64_t bit) {
    return (filter[bit / 64] >> (bit % 64) & 1) != 0;
  }
  bool MayHold(uint64_t address) const {
    return Test(pages_, Hash(address >> kPageShift, kPageBits)) ||
           (any_large_ && Test(large_, Hash(address >> kLargeShift, kLargeBits)));
  }
  uint32_t Search(uint64_t address) const;
  void Mark(const Block& block);

  Block* blocks_ = nullptr;
  uint64_t* pages_ = nullptr;
  uint64_t* large_ = nullptr;
  uint64_t first_ = kAddressMask + 1;
  uint64_t span_ = 0;  // from the first block to the end of the last
  uint64_t bytes_ = 0;
  uint64_t capacity_ = 0;
  uint32_t count_ = 0;
  bool any_large_ = false;
};

}  // namespace heapflare::reach
