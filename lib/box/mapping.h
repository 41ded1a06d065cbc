// A box as its writer has it: the file, mapped, with its regions laid out and space reserved as
// they grow.
//
// One per process. Callable on any stack and from signal handlers; allocates nothing but the
// mapping. All functions but Create and Forget may run on many threads at once.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lib/box/format.h"
#include "lib/box/shared.h"

namespace heapflare::box {

struct MappingOptions {
  const char* path;     // of the file, which must not exist; nullptr: memory without a name (memfd)
  uint64_t file_bytes;  // budget of the whole box, at least kMinimumFileBytes
  uint32_t mode;        // of the file
  // No file at all: memory that a forked child gets its own copy of, as it was at the fork. Its pages
  // are there when they are touched. Of `file_bytes` as much as there are addresses for.
  bool unshared = false;
};

class Mapping {
 public:
  // Creates the file, maps it, lays out the regions and leaves the header in State::kStarting. 0 or
  // negative errno; after a failure no file is left.
  int Create(const MappingOptions& options);
  // Unmaps without touching the file: what a forked child does with its parent's box.
  void Forget();
  // In a forked child: puts a private copy in the place of the mapping, so that what is under way can
  // end without writing into the parent's box. False: there is no memory, nothing was changed.
  bool GoPrivate();

  bool mapped() const { return base_ != nullptr; }
  Header& header() const { return *reinterpret_cast<Header*>(base_); }
  const std::byte* base() const { return base_; }
  uint64_t bytes() const { return bytes_; }

  template <typename T>
  T* Records(RegionId id) const {
    return reinterpret_cast<T*>(base_ + header().regions[id].offset);
  }

  // Takes `count` neighbouring records of an append region, with space for them. False: the region
  // or the file system is full.
  bool Take(RegionId id, uint64_t count, uint64_t* first);
  // Reserves the first `bytes` of a region. False: no space.
  bool Reserve(RegionId id, uint64_t bytes);

 private:
  int CreateUnshared(uint64_t bytes);
  void LayOut();
  void CountAllAsReserved();

  std::byte* base_ = nullptr;
  uint64_t bytes_ = 0;
};

}  // namespace heapflare::box
