// Reads a box, of a living process or a dead one, whole, cut or damaged.
//
// Works on bytes in memory: the mapping in the profiled process itself, or a copy of the file
// elsewhere. Never map somebody else's box: a file that shrinks while it is mapped kills the
// reader. Allocates nothing, keeps only pointers into the bytes, which must outlive it. Trusts
// nothing: what is out of bounds is reported as missing. The writer may be at work meanwhile;
// counters are then right to within the operations in flight. Thread-compatible.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "lib/base/text.h"
#include "lib/box/format.h"

namespace heapflare::box {

struct ModuleView {
  ModuleState state;
  uint64_t start;
  uint64_t limit;
  uint64_t file_offset;
  uint64_t device;
  uint64_t inode;
  std::string_view path;
  const uint8_t* build_id;  // build_id_bytes of them
  uint32_t build_id_bytes;
};

struct StackView {
  uint32_t depth;
  uint32_t flags;          // StackFlags
  const uint32_t* frames;  // `depth` indexes of locations, leaf first
  uint64_t allocated_objects;
  uint64_t allocated_bytes;
  uint64_t live_objects;
  uint64_t live_bytes;
  uint64_t false_leaks;
};

// A look at all stacks, in the past.
struct GrowthColumn {
  uint64_t time_mono;
  uint32_t number;
};

class Reader {
 public:
  // Checks the header and the regions. False: not a box, or damaged beyond use; `problem` then says
  // what was found and what was expected, in words that follow "FILE: ".
  bool Open(const void* data, size_t bytes, base::TextWriter* problem);

  // A copy, taken at Open.
  const Header& header() const { return header_; }
  std::string_view program() const;

  // Slots that may be filled; the i-th is real if the function returns true.
  uint64_t module_count() const { return Filled(kModules); }
  uint64_t location_count() const { return Filled(kLocations); }
  uint64_t stack_count() const { return Filled(kStacks); }
  bool module(uint64_t index, ModuleView* module) const;
  bool location(uint64_t index, Location* location) const;
  // Whether another location stands for the same pc and module, and this one is to give way. (Two
  // threads can meet a place at the same moment; a kill, or a library that comes and goes, can leave
  // both.) Costs a pass over all locations where the flag is set, which is rare.
  bool IsTwin(uint64_t index, const Location& location) const;
  bool stack(uint64_t index, StackView* stack) const;

  // Every slot of the sample table.
  uint64_t sample_slots() const { return InFile(kSamples, header_.regions[kSamples].capacity); }
  bool sample(uint64_t slot, Sample* sample) const;

  // Looks whose values are there, oldest first. Their times are what the file says, whatever that is.
  uint32_t growth_columns(GrowthColumn (&columns)[kGrowthColumns]) const;
  // What lived of a stack in column `number`, bytes.
  uint64_t growth(uint64_t stack, uint32_t number) const;

  // The points that a ring still holds are numbered [first, end), no more than lie within the file;
  // some may be missing.
  struct Range {
    uint64_t first;
    uint64_t end;
  };
  Range history() const { return RingRange(kHistory); }
  Range recent() const { return RingRange(kRecent); }
  Range events() const { return RingRange(kEvents); }
  bool history(uint64_t number, TimelinePoint* point) const;
  bool recent(uint64_t number, TimelinePoint* point) const;
  bool event(uint64_t number, Event* event) const;

 private:
  // Records of the region that lie within the file.
  uint64_t InFile(RegionId id, uint64_t count) const;
  uint64_t Filled(RegionId id) const { return InFile(id, header_.regions[id].used); }
  Range RingRange(RegionId id) const;
  template <typename T>
  const T* At(RegionId id, uint64_t index) const {
    return reinterpret_cast<const T*>(data_ + header_.regions[id].offset) + index;
  }
  template <typename T>
  bool RingRecord(RegionId id, uint64_t number, T* record) const;

  const std::byte* data_ = nullptr;
  uint64_t bytes_ = 0;
  Header header_ = {};
};

}  // namespace heapflare::box
