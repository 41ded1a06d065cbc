// What the workload had live at the moment of its death: the truth that a profile is compared with.
//
// A file of its own, mapped shared, so that it outlives SIGKILL like the box does. It starts with a
// Header; behind it lies one Lane per thread. A lane counts live blocks by site (who allocated) and
// size, which is one store per operation: bytes, objects and the variance of a sampled estimate all
// follow from these counts, and cannot disagree with each other.
//
// The kill can fall between an allocation and its count. Hence a lane announces what it is about to
// do: of an announced block nobody can say whether it counts, and the comparison allows for it.
//
// Read by ledger.py, which repeats this layout. Numbers are little-endian.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace workload {

// Sites are named like the functions that allocate for them.
inline constexpr const char* kSiteNames[] = {
    "HandleRequest",       "LeakSmallByNew",   "LeakSmallByMalloc", "LeakMediumByCalloc",
    "LeakMediumByRealloc", "LeakHugeByMalloc", "LeakHugeAligned",   "HoldWorkingSet",
    "TheLastStraw",        "LeakByMalloc",     "GrowByRealloc"};
enum Site : uint32_t {
  kHandleRequest,
  kSmallByNew,
  kSmallByMalloc,
  kMediumByCalloc,
  kMediumByRealloc,
  kHugeByMalloc,
  kHugeAligned,
  kHoldWorkingSet,
  kTheLastStraw,
  kByMalloc,
  kGrowByRealloc,
  kSites,
};
static_assert(kSites == sizeof(kSiteNames) / sizeof(kSiteNames[0]));

// Every block has one of these sizes, so that a count per size says all.
inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kBlockSizes[] = {16,         24,          40,        64,
                                           96,         144,         200,       256,  //
                                           320,        400,         512,       600,
                                           700,        800,         900,       1024,  // small
                                           4 * kKiB,   6 * kKiB,    9 * kKiB,  14 * kKiB,
                                           20 * kKiB,  30 * kKiB,   45 * kKiB, 64 * kKiB,  // medium
                                           1 * kMiB,   1536 * kKiB, 2 * kMiB,  3 * kMiB,   // huge
                                           200 * kMiB,               // straw of 256 MiB
                                           50 * kMiB,  800 * kMiB};  // of 64, 1024 MiB
inline constexpr uint32_t kSizes = sizeof(kBlockSizes) / sizeof(kBlockSizes[0]);
struct SizeClass {
  uint32_t first;
  uint32_t count;
};
inline constexpr SizeClass kSmall = {0, 16};
inline constexpr SizeClass kMedium = {16, 8};
inline constexpr SizeClass kHuge = {24, 4};
inline constexpr uint32_t kStrawSize = 28;

inline constexpr uint64_t kLedgerMagic = 0x3152454744454c48;  // "HLEDGER1" in the file

struct Header {
  uint64_t magic;
  uint32_t lanes;
  uint32_t sites;
  uint32_t sizes;
  uint32_t lane_bytes;
  char site_names[kSites][32];
  uint64_t block_sizes[kSizes];
};

// Written by one thread only, on cache lines of its own.
struct alignas(64) Lane {
  std::atomic<uint64_t> announced;  // 0, or 1 + site * kSizes + size
  std::atomic<uint64_t> live[kSites][kSizes];

  void Announce(Site site, uint32_t size) {
    announced.store(1 + uint64_t{site} * kSizes + size, std::memory_order_release);
  }
  // After the allocation, before its memory is touched: touching is what the kernel kills for.
  void Allocated(Site site, uint32_t size) {
    Add(site, size, 1);
    announced.store(0, std::memory_order_release);
  }
  void Freed(Site site, uint32_t size) {
    Add(site, size, static_cast<uint64_t>(-1));
    announced.store(0, std::memory_order_release);
  }

 private:
  // No read-modify-write is needed with one writer.
  void Add(Site site, uint32_t size, uint64_t difference) {
    std::atomic<uint64_t>& count = live[site][size];
    count.store(count.load(std::memory_order_relaxed) + difference, std::memory_order_release);
  }
};

inline constexpr size_t kLanesStart = (sizeof(Header) + 63) / 64 * 64;

}  // namespace workload
