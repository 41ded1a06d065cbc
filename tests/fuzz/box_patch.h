// Boxes as fuzz inputs. A box is a large file with little in it; an input is a small one that says
// which box to start from and what to change in it, so that a fuzzer comes to the deep parts of
// readers at once, and thousands of times a second.
//
//   byte 0   the start: 0 a box without records, 1 one of a small service; 2: what follows is itself
//            the file. In the upper bits, what is to be done with it; see box_fuzz.cc.
//   then     changes: a byte `kind`, a 16-bit offset, the bytes that go there.
//            kind % 16   0..8 into the region of that number, 9 into the table of regions, 10 into
//                        the header after it, 11: the file ends at offset, 13: into kGrowth,
//                        others: into the file
//            kind / 16   % 4: 1, 4, 8 bytes, or as many as another byte says, plus one
#pragma once

#include <cstddef>

#include "lib/box/format.h"
#include "lib/box/reader.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/box_builder.h"

namespace heapflare::fuzz {

inline constexpr size_t kPage = 4096;
// Pages of each region in the boxes here: enough for a small service.
inline constexpr uint64_t kRegionPages[box::kRegionCount] = {1, 1, 2, 1, 2, 1, 1, 1, 1, 1};
enum Place : uint8_t { kRegionTable = 9, kHeader = 10, kEnd = 11, kFile = 12, kGrowthPlace = 13 };
// Regions that came later have numbers behind, so that old inputs stay what they are.
inline uint8_t PlaceOfRegion(uint32_t id) {
  return static_cast<uint8_t>(id == box::kGrowth ? uint32_t{kGrowthPlace} : id);
}
inline constexpr size_t kHeaderRest = offsetof(box::Header, pid);

// Moves what is in `large` into a box with regions of these sizes; what does not fit stays out.
inline std::string Compact(std::string_view large) {
  box::Header header = {};
  memcpy(&header, large.data(), sizeof(header));
  std::string small(kPage, 0);
  for (uint32_t id = 0; id < box::kRegionCount; ++id) {
    box::Region& region = header.regions[id];
    const std::string_view old = large.substr(region.offset, region.capacity * region.record_bytes);
    const size_t at = small.size();
    const size_t room = kRegionPages[id] * kPage;
    small.resize(at + room);
    if (id == box::kSamples) {
      // Readers look at every slot: the filled ones, together.
      size_t next = at;
      for (size_t i = 0; i < old.size(); i += region.record_bytes) {
        uint64_t address = 0;
        memcpy(&address, old.data() + i, sizeof(address));
        if (address == 0 || next + region.record_bytes > at + room) continue;
        memcpy(small.data() + next, old.data() + i, region.record_bytes);
        next += region.record_bytes;
      }
    } else {
      memcpy(small.data() + at, old.data(), std::min(room, old.size()));
    }
    region.offset = at;
    region.capacity = room / region.record_bytes;
    region.used = std::min(region.used, region.capacity);
    region.reserved = std::min<uint64_t>(region.reserved, room);
  }
  header.file_bytes = small.size();
  memcpy(small.data(), &header, sizeof(header));
  return small;
}

// `filled`: that of a service with a few stacks.
inline std::string BaseBox(bool filled) {
  test::BoxBuilder builder("");
  if (filled) {
    builder.FillPlausibly(6);
    // A library that made room for another one.
    const uint32_t old =
        builder.AddModule("/usr/lib/old.so", 0x7f0000050000, 0x7f0000060000, 0, "");
    builder.AddStack({0x7f0000050010, 0x400100});
    builder.mapping().Records<box::Module>(box::kModules)[old].state =
        static_cast<uint32_t>(box::ModuleState::kUnloaded);
  }
  // The same in every run.
  box::Header& header = builder.header();
  header.pid = 4711;
  header.uid = 1000;
  header.opened_mono = header.heartbeat_mono = 1'000'000'000;
  for (uint64_t i = 1; filled && i <= 20; ++i) {
    header.heartbeat_mono += 1'000'000'000;
    builder.Look(header.heartbeat_mono);
  }
  for (const box::RegionId ring : {box::kRecent, box::kHistory}) {
    for (uint64_t i = 0; i < header.regions[ring].used; ++i) {
      builder.mapping().Records<box::TimelinePoint>(ring)[i].time_mono = header.opened_mono + i;
    }
  }
  builder.Publish();
  return Compact(
      {reinterpret_cast<const char*>(builder.mapping().base()), builder.mapping().bytes()});
}

inline size_t PlaceOf(const std::string& box, uint8_t place) {
  if (place < kRegionTable || place == kGrowthPlace) {
    const size_t id = place == kGrowthPlace ? size_t{box::kGrowth} : place;
    uint64_t offset = 0;
    memcpy(&offset,
           box.data() + offsetof(box::Header, regions) + id * sizeof(box::Region) +
               offsetof(box::Region, offset),
           sizeof(offset));
    return offset;
  }
  if (place == kRegionTable) return offsetof(box::Header, regions);
  return place == kHeader ? kHeaderRest : 0;
}

// The box that the input stands for.
inline std::string BoxOf(uint8_t start, Input* input) {
  if (start == 2) return std::string(input->Rest());
  static const std::string kBases[] = {BaseBox(false), BaseBox(true)};
  const std::string& base = kBases[start % 2];
  std::string box = base;
  size_t end = box.size();
  while (!input->empty()) {
    const auto kind = input->Take<uint8_t>();
    const size_t offset = input->Take<uint16_t>();
    const auto place = static_cast<uint8_t>(kind % 16);
    if (place == kEnd) {
      end = offset;
      continue;
    }
    constexpr size_t kLengths[] = {1, 4, 8};
    const size_t code = kind / 16 % 4;
    const std::string_view bytes =
        input->Bytes(code < 3 ? kLengths[code] : size_t{1} + input->Take<uint8_t>());
    const size_t at = (PlaceOf(base, place) + offset) % box.size();
    memcpy(box.data() + at, bytes.data(), std::min(bytes.size(), box.size() - at));
  }
  box.resize(std::min(end, box.size()));
  return box;
}

// An input that stands for `box`, which was made by Compact.
inline std::string InputFor(const std::string& box, uint8_t what) {
  const std::string base = BaseBox(false);
  std::string input(1, static_cast<char>(what));
  const auto add_run = [&](uint8_t place, size_t start, size_t from, size_t to) {
    for (; from < to; from += 256) {
      const size_t bytes = std::min<size_t>(to - from, 256);
      const auto offset = static_cast<uint16_t>(from - start);
      input += static_cast<char>(place | 3 << 4);
      input.append(reinterpret_cast<const char*>(&offset), sizeof(offset));
      input += static_cast<char>(bytes - 1);
      input.append(box, from, bytes);
    }
  };
  const auto add_differences = [&](uint8_t place, size_t start, size_t end) {
    // Runs that are less than 5 bytes apart are one: a run costs 4.
    size_t from = end;
    size_t last = end;
    for (size_t i = start; i < end; ++i) {
      if (box[i] == base[i]) continue;
      if (from != end && i - last > 4) {
        add_run(place, start, from, last + 1);
        from = end;
      }
      if (from == end) from = i;
      last = i;
    }
    if (from != end) add_run(place, start, from, last + 1);
  };
  add_differences(kRegionTable, offsetof(box::Header, regions), kHeaderRest);
  add_differences(kHeader, kHeaderRest, sizeof(box::Header));
  for (uint32_t id = 0; id < box::kRegionCount; ++id) {
    const uint8_t place = PlaceOfRegion(id);
    const size_t start = PlaceOf(base, place);
    add_differences(place, start, start + kRegionPages[id] * kPage);
  }
  return input;
}

}  // namespace heapflare::fuzz
