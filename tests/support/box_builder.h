// Makes box files for tests, with the parts that the recorder itself writes them with.
//
//   BoxBuilder box(path);
//   const uint32_t stack = box.AddStack({0x401010, 0x401050});
//   box.Allocate(stack, 0x7000, 4096);
//   box.Publish();
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/syscall.h"
#include "lib/box/growth.h"
#include "lib/box/mapping.h"
#include "lib/box/sample_table.h"
#include "lib/box/shared.h"
#include "lib/box/stack_table.h"
#include "lib/box/totals.h"

namespace heapflare::test {

// Goes with everything in it.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    char name[] = "/tmp/heapflare-test-XXXXXX";
    if (mkdtemp(name) == nullptr) throw std::runtime_error("no temporary directory");
    path_ = name;
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

class BoxBuilder {
 public:
  // The main program is mapped at [0x400000, 0x500000), file offset 0x1000. One box at a time is in
  // the making. An empty path makes a box without a name.
  explicit BoxBuilder(const std::string& path, uint64_t bytes = box::kMinimumFileBytes) {
    if (!path.empty()) unlink(path.c_str());
    modules_.clear();
    Check(mapping_.Create(
              {.path = path.empty() ? nullptr : path.c_str(), .file_bytes = bytes, .mode = 0600}) ==
          0);
    Check(stacks_.Attach(&mapping_, FindModule) == 0 && samples_.Attach(&mapping_) == 0);
    box::Header& header = mapping_.header();
    header.pid = static_cast<uint32_t>(getpid());
    header.uid = geteuid();
    header.start_utc = kStart;
    header.opened_utc = kStart;
    header.heartbeat_utc = kStart;
    header.opened_mono = static_cast<uint64_t>(base::MonotonicNanoseconds());
    header.heartbeat_mono = header.opened_mono;
    header.configured_interval = header.interval = 512 << 10;
    header.max_frames = 64;
    strcpy(header.program, "checkout");
    strcpy(header.recorder_version, "0.1.0");
    AddModule("/usr/bin/checkout", 0x400000, 0x500000, 0x1000, "\xab\xcd\xef\x01");
  }
  ~BoxBuilder() {
    samples_.Detach();
    stacks_.Detach();
    mapping_.Forget();
  }
  BoxBuilder(const BoxBuilder&) = delete;
  BoxBuilder& operator=(const BoxBuilder&) = delete;

  static constexpr uint64_t kStart = 1'700'000'000'000'000'000;

  box::Header& header() { return mapping_.header(); }
  box::Mapping& mapping() { return mapping_; }

  uint32_t AddModule(std::string_view path, uint64_t start, uint64_t limit, uint64_t file_offset,
                     std::string_view build_id) {
    uint64_t text = 0;
    uint64_t index = 0;
    Check(mapping_.Take(box::kStrings, path.size(), &text));
    Check(mapping_.Take(box::kModules, 1, &index));
    memcpy(mapping_.Records<char>(box::kStrings) + text, path.data(), path.size());
    box::Module& module = mapping_.Records<box::Module>(box::kModules)[index];
    module.start = start;
    module.limit = limit;
    module.file_offset = file_offset;
    module.path_offset = static_cast<uint32_t>(text);
    module.path_bytes = static_cast<uint32_t>(path.size());
    module.build_id_bytes = static_cast<uint32_t>(build_id.size());
    memcpy(module.build_id, build_id.data(), build_id.size());
    module.state = static_cast<uint32_t>(box::ModuleState::kLoaded);
    modules_.push_back({start, limit});
    return static_cast<uint32_t>(index);
  }

  // Return addresses, leaf first.
  uint32_t AddStack(std::vector<uint64_t> frames, uint32_t flags = 0) {
    return stacks_.Intern(frames.data(), static_cast<uint32_t>(frames.size()), flags);
  }

  // One sampled allocation that stands for `objects` of its size.
  void Allocate(uint32_t stack, uint64_t address, uint64_t size, uint64_t objects = 1) {
    AllocateWeighted(stack, address, size, objects << box::kObjectShift);
  }
  // The same with a weight in units of the format, and a time of birth.
  void AllocateWeighted(uint32_t stack, uint64_t address, uint64_t size, uint64_t weight,
                        uint32_t born_tenths = 0) {
    Check(samples_.Insert({.address = address,
                           .size_and_marks = box::WithoutMarks(size),
                           .weight = weight,
                           .stack = stack,
                           .born_tenths = born_tenths}) != box::SampleTable::Room::kNone);
    stacks_.AddAllocated(stack, weight, box::WeightedBytes(size, weight));
  }
  void Free(uint64_t address) {
    box::Sample sample = {};
    Check(samples_.Remove(address, &sample));
    stacks_.AddFreed(sample.stack, sample.weight,
                     box::WeightedBytes(box::SizeOf(sample), sample.weight));
  }

  void AddPoint(box::RegionId ring, uint64_t usage, uint64_t limit) {
    box::Region& region = header().regions[ring];
    const uint64_t slot = region.used % region.capacity;
    Check(mapping_.Reserve(ring, (slot + 1) * region.record_bytes));
    box::TimelinePoint point = {};
    memset(&point, 0xff, sizeof(point));
    point.time_mono = header().opened_mono;
    point.usage = usage;
    point.limit = limit;
    point.live_heap = box::WholeBytes(box::SumTallies(header()).live_bytes());
    box::PublishInRing(point, region.used, mapping_.Records<box::TimelinePoint>(ring) + slot);
    ++region.used;
  }
  // What the recorder's look at `time_mono` stores: what lives of every stack.
  void Look(uint64_t time_mono) {
    box::Region& region = header().regions[box::kGrowth];
    const uint64_t count = std::min(header().regions[box::kStacks].used, region.capacity);
    Check(mapping_.Reserve(box::kGrowth, count * region.record_bytes));
    const uint32_t column = box::ChooseGrowthColumn(header().growth_mono, time_mono);
    box::Atomic(header().growth_mono[column]).store(0);
    for (uint64_t i = 0; i < count; ++i) {
      const box::Stack& stack = mapping_.Records<box::Stack>(box::kStacks)[i];
      box::Atomic(mapping_.Records<box::GrowthRecord>(box::kGrowth)[i].live[column])
          .store(box::PackBytes(box::WholeBytes(stack.allocated_bytes - stack.freed_bytes)));
    }
    box::Atomic(header().growth_mono[column]).store(time_mono);
    ++region.used;
  }
  void AddEvent(box::EventKind kind, std::string_view text, uint64_t a = 0, uint64_t b = 0) {
    box::Region& region = header().regions[box::kEvents];
    const uint64_t slot = region.used % region.capacity;
    Check(mapping_.Reserve(box::kEvents, (slot + 1) * region.record_bytes));
    box::Event event = {};
    event.time_mono = header().opened_mono;
    event.kind = static_cast<uint32_t>(kind);
    event.a = a;
    event.b = b;
    memcpy(event.text, text.data(), std::min(text.size(), sizeof(event.text)));
    box::PublishInRing(event, region.used, mapping_.Records<box::Event>(box::kEvents) + slot);
    ++region.used;
  }

  // Makes the box readable.
  void Publish(box::State state = box::State::kRunning) {
    header().magic = box::kMagic;
    header().state = static_cast<uint32_t>(state);
  }

  // A service of some size: two modules, `stacks` stacks of different depth, some blocks freed, a
  // timeline, events.
  void FillPlausibly(uint32_t stacks = 50) {
    AddModule("/usr/lib/libfoo.so.1", 0x7f0000000000, 0x7f0000100000, 0x2000, "\x12\x34");
    for (uint32_t i = 0; i < stacks; ++i) {
      std::vector<uint64_t> frames;
      for (uint32_t k = 0; k < 3 + i % 20; ++k) {
        frames.push_back((k % 3 == 2 ? 0x7f0000000010 : 0x400010) + (i * 37 + k * 101) % 4000 * 16);
      }
      frames.push_back(0x400100);
      uint32_t flags = 0;
      if (i % 17 == 3) flags |= box::kStackTruncated;
      if (i % 23 == 5) flags |= box::kStackIncomplete;
      const uint32_t stack = AddStack(frames, flags);
      for (uint32_t k = 0; k < 1 + i % 5; ++k) {
        const uint64_t address = 0x10000000 + (uint64_t{i} * 16 + k) * 4096;
        Allocate(stack, address, 100 + 1000 * i, 1 + k);
        if (k % 2 == 1) Free(address);
      }
    }
    for (uint64_t i = 1; i <= 30; ++i) AddPoint(box::kRecent, i << 20, 64 << 20);
    AddPoint(box::kHistory, 1 << 20, 64 << 20);
    AddEvent(box::EventKind::kDump, "rung-90pct");
  }

 private:
  struct Range {
    uint64_t start;
    uint64_t limit;
  };
  static void Check(bool done) {
    if (!done) throw std::runtime_error("the box that the test wants cannot be made");
  }
  static uint32_t FindModule(uint64_t pc) {
    for (size_t i = 0; i < modules_.size(); ++i) {
      if (pc >= modules_[i].start && pc < modules_[i].limit) return static_cast<uint32_t>(i + 1);
    }
    return 0;
  }

  static inline std::vector<Range> modules_;
  box::Mapping mapping_;
  box::StackTable stacks_;
  box::SampleTable samples_;
};

}  // namespace heapflare::test
