#include "lib/box/mapping.h"

#include <errno.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "lib/base/held_signals.h"
#include "lib/base/syscall.h"

namespace heapflare::box {
namespace {

constexpr uint64_t kPage = 4096;
// Space is reserved in steps of this size: small enough for a box that hardly grows, large enough
// to be rare.
constexpr uint64_t kReserveStep = 64 << 10;

constexpr uint64_t RoundUp(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }

// How the budget is divided: shares of 1/256 of the file, and the records' sizes. Samples take half
// of it: at the default 16 MiB 260,000 live ones, 130 GiB of heap at the default interval; 32,000
// stacks of 21 frames on average, each with its history.
struct Share {
  RegionId id;
  uint64_t record_bytes;
  uint64_t parts;
};
constexpr Share kShares[] = {
    {kModules, sizeof(Module), 3},        {kStrings, 1, 4},
    {kLocations, sizeof(Location), 16},   {kFrames, sizeof(uint32_t), 43},
    {kStacks, sizeof(Stack), 32},         {kSamples, sizeof(Sample), 128},
    {kHistory, sizeof(TimelinePoint), 6}, {kRecent, sizeof(TimelinePoint), 6},
    {kEvents, sizeof(Event), 2},          {kGrowth, sizeof(GrowthRecord), 16},
};
static_assert(std::size(kShares) == kRegionCount);

// Makes [at, at + bytes) of a shared file mapping present and writable; fails instead of raising
// SIGBUS later.
bool Populate(std::byte* at, uint64_t bytes) {
  constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE, kernel 5.14
  long result = -EINTR;
  for (int i = 0; (result == -EINTR || result == -EAGAIN) && i < base::kMostInterruptions; ++i) {
    result = base::Syscall(SYS_madvise, base::Arg(at), static_cast<long>(bytes), kPopulateWrite);
  }
  return result == 0;
}

bool CanPopulate(std::byte* at) { return Populate(at, kPage); }

}  // namespace

int Mapping::Create(const MappingOptions& options) {
  const uint64_t bytes =
      RoundUp(std::clamp(options.file_bytes, kMinimumFileBytes, kMaximumFileBytes), kPage);
  if (options.unshared) return CreateUnshared(bytes);
  int fd = 0;
  if (options.path != nullptr) {
    fd = base::Open(options.path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, options.mode);
    // The umask has no say in who may read the box.
    if (fd >= 0) base::ChangeMode(fd, options.mode);
  } else {
    constexpr long kCloseOnExec = 1;  // MFD_CLOEXEC
    fd =
        static_cast<int>(base::Syscall(SYS_memfd_create, base::Arg("heapflare-box"), kCloseOnExec));
  }
  if (fd < 0) return fd;

  // A limit on the size of files is to cost the box, not the service's life.
  const base::HeldSignals held;
  int error = static_cast<int>(held.Take(base::Truncate(fd, bytes)));
  if (error == 0) {
    void* mapped = base::Map(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    if (mapped == nullptr) {
      error = -ENOMEM;
    } else {
      base_ = static_cast<std::byte*>(mapped);
      bytes_ = bytes;
      // Kernels that cannot populate through the mapping reserve everything through the descriptor,
      // once; memory without a name has no file system that could be full.
      const bool grows = CanPopulate(base_);
      if (!grows && options.path != nullptr) {
        error = static_cast<int>(held.Take(base::Reserve(fd, 0, bytes)));
      }
      if (error == 0) {
        LayOut();
        if (!grows) CountAllAsReserved();
      }
    }
  }
  // The mapping keeps the file. A memfd stays open, since /proc/PID/fd is its only door.
  if (options.path != nullptr || error != 0) base::Close(fd);
  if (error != 0) {
    Forget();
    if (options.path != nullptr) base::Unlink(options.path);
  }
  return error;
}

int Mapping::CreateUnshared(uint64_t bytes) {
  void* mapped = nullptr;
  for (; mapped == nullptr && bytes >= kMinimumFileBytes; bytes = RoundUp(bytes / 2, kPage)) {
    mapped = base::Map(nullptr, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
    if (mapped != nullptr) break;
  }
  if (mapped == nullptr) return -ENOMEM;
  base_ = static_cast<std::byte*>(mapped);
  bytes_ = bytes;
  LayOut();
  CountAllAsReserved();
  return 0;
}

void Mapping::CountAllAsReserved() {
  for (Region& region : header().regions) region.reserved = region.capacity * region.record_bytes;
}

void Mapping::Forget() {
  if (base_ != nullptr) base::Unmap(base_, bytes_);
  base_ = nullptr;
  bytes_ = 0;
}

bool Mapping::GoPrivate() {
  if (base_ == nullptr) return true;
  void* const copy = base::Map(nullptr, bytes_, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
  if (copy == nullptr) return false;
  auto* const to = static_cast<std::byte*>(copy);
  memcpy(to, base_, kPage);
  // What lies beyond is not only empty, it may have no space.
  for (const Region& region : header().regions) {
    memcpy(to + region.offset, base_ + region.offset,
           std::min(region.reserved, region.capacity * region.record_bytes));
  }
  const auto size = static_cast<long>(bytes_);
  const long moved = base::Syscall(SYS_mremap, base::Arg(copy), size, size,
                                   MREMAP_MAYMOVE | MREMAP_FIXED, base::Arg(base_));
  if (!base::Failed(moved)) return true;
  base::Unmap(copy, bytes_);
  return false;
}

void Mapping::LayOut() {
  Header& header = this->header();
  header.version = kVersion;
  header.header_bytes = sizeof(Header);
  header.region_count = kRegionCount;
  header.file_bytes = bytes_;
  uint64_t offset = kPage;
  for (const Share& share : kShares) {
    const uint64_t size = (bytes_ - kPage) / 256 * share.parts / kPage * kPage;
    header.regions[share.id] = {.offset = offset,
                                .capacity = size / share.record_bytes,
                                .record_bytes = share.record_bytes,
                                .used = 0,
                                .reserved = 0};
    offset += size;
  }
}

bool Mapping::Take(RegionId id, uint64_t count, uint64_t* first) {
  Region& region = header().regions[id];
  const auto used = Atomic(region.used);
  uint64_t taken = used.load(std::memory_order_relaxed);
  do {
    if (taken + count > region.capacity) return false;
    if (!Reserve(id, (taken + count) * region.record_bytes)) return false;
  } while (!used.compare_exchange_weak(taken, taken + count, std::memory_order_relaxed));
  *first = taken;
  return true;
}

bool Mapping::Reserve(RegionId id, uint64_t bytes) {
  Region& region = header().regions[id];
  const auto reserved = Atomic(region.reserved);
  uint64_t have = reserved.load(std::memory_order_acquire);
  if (bytes <= have) return true;
  const uint64_t end = RoundUp(region.capacity * region.record_bytes, kPage);
  const uint64_t want = std::min(RoundUp(bytes, kReserveStep), end);
  if (bytes > want || !Populate(base_ + region.offset + have, want - have)) return false;
  // Two threads may have populated the same pages: harmless. The mark only moves up.
  while (have < want && !reserved.compare_exchange_weak(have, want, std::memory_order_release)) {
  }
  return true;
}

}  // namespace heapflare::box
