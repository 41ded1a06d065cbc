#include "lib/box/reader.h"

#include <algorithm>
#include <cstring>

#include "lib/box/growth.h"
#include "lib/box/shared.h"

namespace heapflare::box {
namespace {

constexpr uint64_t kPage = 4096;

constexpr uint64_t kRecordBytes[kRegionCount] = {sizeof(Module),        1,
                                                 sizeof(Location),      sizeof(uint32_t),
                                                 sizeof(Stack),         sizeof(Sample),
                                                 sizeof(TimelinePoint), sizeof(TimelinePoint),
                                                 sizeof(Event),         sizeof(GrowthRecord)};

}  // namespace

bool Reader::Open(const void* data, size_t bytes, base::TextWriter* problem) {
  problem->Clear();
  const auto fail = [problem](std::string_view what) {
    problem->Add(what);
    return false;
  };
  uint64_t magic = 0;
  if (bytes >= sizeof(magic)) memcpy(&magic, data, sizeof(magic));
  if (magic != kMagic) {
    problem->Add("not a heapflare box (");
    if (bytes < sizeof(magic)) {
      problem->AddNumber(bytes).Add(" bytes long");
    } else {
      problem->Add("starts with ").AddHex(__builtin_bswap64(magic), 16);
    }
    return fail("); boxes end in .box, try: heapflare ls");
  }
  if (bytes < kPage) {
    return fail("box cut off in its header; nothing can be read");
  }
  LoadShared(data, &header_);
  if (header_.version != kVersion) {
    problem->Add("box of format ").AddNumber(header_.version);
    problem->Add(", this heapflare reads format ").AddNumber(kVersion);
    return fail("; use the heapflare that came with the recorder");
  }
  if (header_.state != static_cast<uint32_t>(State::kRunning) &&
      header_.state != static_cast<uint32_t>(State::kClosed)) {
    return fail("box that its process never completed; it holds no samples");
  }
  if (header_.header_bytes != sizeof(Header) || header_.region_count != kRegionCount ||
      header_.file_bytes > kMaximumFileBytes) {
    return fail("damaged box: its header has impossible sizes");
  }
  uint64_t end = kPage;
  for (uint32_t i = 0; i < kRegionCount; ++i) {
    const Region& region = header_.regions[i];
    uint64_t size = 0;
    if (region.record_bytes != kRecordBytes[i] || region.offset % kPage != 0 ||
        region.offset < end || region.capacity == 0 ||
        __builtin_mul_overflow(region.capacity, region.record_bytes, &size) ||
        size > header_.file_bytes || region.offset > header_.file_bytes - size) {
      problem->Add("damaged box: region ").AddNumber(i);
      return fail(" does not fit the file");
    }
    end = region.offset + size;
  }
  data_ = static_cast<const std::byte*>(data);
  bytes_ = std::min<uint64_t>(bytes, header_.file_bytes);
  return true;
}

std::string_view Reader::program() const {
  return {header_.program, strnlen(header_.program, sizeof(header_.program))};
}

uint64_t Reader::InFile(RegionId id, uint64_t count) const {
  const Region& region = header_.regions[id];
  const uint64_t present =
      bytes_ > region.offset ? (bytes_ - region.offset) / region.record_bytes : 0;
  return std::min({count, region.capacity, present});
}

bool Reader::module(uint64_t index, ModuleView* module) const {
  if (index >= module_count()) return false;
  const Module& record = *At<Module>(kModules, index);
  const auto state = static_cast<ModuleState>(Load(record.state, std::memory_order_acquire));
  if (state != ModuleState::kLoaded && state != ModuleState::kUnloaded) return false;
  const uint64_t text = Filled(kStrings);
  const uint64_t limit = Load(record.limit, std::memory_order_relaxed);
  if (record.build_id_bytes > kBuildIdBytes || record.start >= limit || record.path_offset > text ||
      record.path_bytes > text - record.path_offset) {
    return false;
  }
  *module = {.state = state,
             .start = record.start,
             .limit = limit,
             .file_offset = record.file_offset,
             .device = record.device,
             .inode = record.inode,
             .path = {At<char>(kStrings, record.path_offset), record.path_bytes},
             .build_id = record.build_id,
             .build_id_bytes = record.build_id_bytes};
  return true;
}

bool Reader::location(uint64_t index, Location* location) const {
  if (index >= location_count()) return false;
  const Location& record = *At<Location>(kLocations, index);
  const uint64_t pc = Load(record.pc, std::memory_order_acquire);
  if (pc == 0) return false;
  *location = {.pc = pc,
               .module_plus_one = Load(record.module_plus_one, std::memory_order_relaxed),
               .flags = Load(record.flags, std::memory_order_relaxed)};
  return true;
}

bool Reader::IsTwin(uint64_t index, const Location& location) const {
  if ((location.flags & kLocationMayBeTwin) == 0) return false;
  Location other = {};
  for (uint64_t i = 0; i < location_count(); ++i) {
    if (i == index || !this->location(i, &other) || other.pc != location.pc ||
        other.module_plus_one != location.module_plus_one) {
      continue;
    }
    if ((other.flags & kLocationMayBeTwin) == 0 || i < index) return true;
  }
  return false;
}

bool Reader::stack(uint64_t index, StackView* stack) const {
  if (index >= stack_count()) return false;
  const Stack& record = *At<Stack>(kStacks, index);
  const uint32_t depth_plus_one = Load(record.depth, std::memory_order_acquire);
  if (depth_plus_one == 0 || depth_plus_one - 1 > kMaxFrames) return false;
  const uint32_t depth = depth_plus_one - 1;
  const uint64_t frames = Filled(kFrames);
  if (record.first_frame > frames || depth > frames - record.first_frame) return false;
  // Freed before allocated: see format.h.
  const uint64_t freed_objects = Load(record.freed_objects, std::memory_order_acquire);
  const uint64_t freed_bytes = Load(record.freed_bytes, std::memory_order_acquire);
  const uint64_t allocated_objects = Load(record.allocated_objects, std::memory_order_acquire);
  const uint64_t allocated_bytes = Load(record.allocated_bytes, std::memory_order_acquire);
  *stack = {.depth = depth,
            .flags = record.flags,
            .frames = At<uint32_t>(kFrames, record.first_frame),
            .allocated_objects = allocated_objects,
            .allocated_bytes = allocated_bytes,
            .live_objects = allocated_objects - std::min(freed_objects, allocated_objects),
            .live_bytes = allocated_bytes - std::min(freed_bytes, allocated_bytes),
            .false_leaks = Load(record.false_leaks, std::memory_order_relaxed)};
  return true;
}

bool Reader::sample(uint64_t slot, Sample* sample) const {
  if (slot >= sample_slots()) return false;
  const Sample& record = *At<Sample>(kSamples, slot);
  LoadShared(&record, sample);
  if (sample->address == 0 || sample->address == kSampleClaimed) return false;
  // Unchanged if the block was not freed meanwhile, and the slot used for another.
  return Load(record.address, std::memory_order_relaxed) == sample->address;
}

uint32_t Reader::growth_columns(GrowthColumn (&columns)[kGrowthColumns]) const {
  uint32_t count = 0;
  for (uint32_t i = 0; i < kGrowthColumns; ++i) {
    if (header_.growth_mono[i] != 0) columns[count++] = {header_.growth_mono[i], i};
  }
  std::sort(columns, columns + count,
            [](const GrowthColumn& a, const GrowthColumn& b) { return a.time_mono < b.time_mono; });
  return count;
}

uint64_t Reader::growth(uint64_t stack, uint32_t number) const {
  const Region& region = header_.regions[kGrowth];
  if (number >= kGrowthColumns || stack >= InFile(kGrowth, region.reserved / region.record_bytes)) {
    return 0;
  }
  const GrowthRecord& record = *At<GrowthRecord>(kGrowth, stack);
  return UnpackBytes(Load(record.live[number], std::memory_order_acquire));
}

Reader::Range Reader::RingRange(RegionId id) const {
  const Region& region = header_.regions[id];
  const uint64_t present = InFile(id, region.capacity);
  if (present == region.capacity) {
    return {.first = region.used > region.capacity ? region.used - region.capacity : 0,
            .end = region.used};
  }
  // Cut off within the ring, or claiming to be far larger than the file: the first slots are there,
  // so what was written to them since number 0 came by last. Nobody shall look for all the others.
  const uint64_t lap = region.used == 0 ? 0 : (region.used - 1) / region.capacity * region.capacity;
  return {.first = lap, .end = lap + std::min(region.used - lap, present)};
}

template <typename T>
bool Reader::RingRecord(RegionId id, uint64_t number, T* record) const {
  const uint64_t slot = number % header_.regions[id].capacity;
  if (slot >= InFile(id, header_.regions[id].capacity)) return false;
  return ReadFromRing(*At<T>(id, slot), number, record);
}

bool Reader::history(uint64_t number, TimelinePoint* point) const {
  return RingRecord(kHistory, number, point);
}
bool Reader::recent(uint64_t number, TimelinePoint* point) const {
  return RingRecord(kRecent, number, point);
}
bool Reader::event(uint64_t number, Event* event) const {
  return RingRecord(kEvents, number, event);
}

}  // namespace heapflare::box
