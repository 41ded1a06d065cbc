#include "kill_box_check.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "absl/strings/str_format.h"
#include "lib/profile/load.h"

namespace heapflare::test {
namespace {

using box::Header;
using box::RegionId;

uint64_t Distance(uint64_t a, uint64_t b) { return a > b ? a - b : b - a; }

// A program of ours has no blocks beyond this.
constexpr uint64_t kLargestBlock = uint64_t{1} << 40;

class Checker {
 public:
  Checker(const std::byte* data, const box::Reader& reader, BoxState* state, Faults* faults)
      : data_(data), reader_(reader), state_(*state), faults_(*faults) {}

  void Run() {
    Regions();
    Modules();
    Locations();
    Stacks();
    Samples();
    Timeline("history", reader_.history(),
             [this](uint64_t i, box::TimelinePoint* point) { return reader_.history(i, point); });
    Timeline("recent", reader_.recent(),
             [this](uint64_t i, box::TimelinePoint* point) { return reader_.recent(i, point); });
    Events();
    const box::Totals totals = box::SumTallies(reader_.header());
    Hold(totals.freed_bytes <= totals.allocated_bytes &&
             totals.samples_freed <= totals.samples_taken,
         "freed %d of %d bytes, %d of %d samples", totals.freed_bytes, totals.allocated_bytes,
         totals.samples_freed, totals.samples_taken);
    state_.totals = totals;
  }

 private:
  template <typename... Arguments>
  void Hold(bool holds, const absl::FormatSpec<Arguments...>& format,
            const Arguments&... arguments) {
    if (!holds && faults_.size() < 20) faults_.push_back(absl::StrFormat(format, arguments...));
  }

  template <typename T>
  const T& Record(RegionId id, uint64_t index) const {
    return reinterpret_cast<const T*>(data_ + reader_.header().regions[id].offset)[index];
  }

  void Regions() {
    for (const RegionId id :
         {box::kModules, box::kStrings, box::kLocations, box::kFrames, box::kStacks}) {
      const box::Region& region = reader_.header().regions[id];
      Hold(region.used <= region.capacity, "region %d uses %d of %d records", id, region.used,
           region.capacity);
      Hold(region.used * region.record_bytes <= region.reserved,
           "region %d uses %d records but has space for %d bytes", id, region.used,
           region.reserved);
    }
  }

  void Modules() {
    for (uint64_t i = 0; i < reader_.module_count(); ++i) {
      if (Record<box::Module>(box::kModules, i).state == 0) continue;
      box::ModuleView module;
      const bool sound = reader_.module(i, &module);
      Hold(sound && !module.path.empty() && module.path.find('\0') == std::string_view::npos,
           "module %d is published but not complete", i);
      if (sound) ++state_.modules;
    }
  }

  void Locations() {
    std::set<std::pair<uint64_t, uint32_t>> seen;
    for (uint64_t i = 0; i < reader_.location_count(); ++i) {
      box::Location location;
      if (!reader_.location(i, &location)) continue;
      ++state_.locations;
      // A kill can leave the record of who came second (IsTwin).
      if (reader_.IsTwin(i, location)) continue;
      Hold(seen.emplace(location.pc, location.module_plus_one).second, "location %d repeats pc %#x",
           i, location.pc);
      if (location.module_plus_one == 0) continue;
      ++state_.placed;
      box::ModuleView module;
      if (!reader_.module(location.module_plus_one - 1, &module)) {
        Hold(false, "location %d is in module %d, which is not published", i,
             location.module_plus_one - 1);
        continue;
      }
      Hold(location.pc - 1 >= module.start && location.pc - 1 < module.limit,
           "location %d at %#x is outside of its module %d", i, location.pc,
           location.module_plus_one - 1);
    }
  }

  void Stacks() {
    for (uint64_t i = 0; i < reader_.stack_count(); ++i) {
      const auto& record = Record<box::Stack>(box::kStacks, i);
      const Sums sums = {.allocated_objects = record.allocated_objects,
                         .allocated_bytes = record.allocated_bytes,
                         .freed_objects = record.freed_objects,
                         .freed_bytes = record.freed_bytes};
      if (record.depth == 0) {
        Hold(sums == Sums{}, "stack %d has counts but is not published", i);
        continue;
      }
      box::StackView stack;
      if (!reader_.stack(i, &stack)) {
        Hold(false, "stack %d is published but not complete", i);
        continue;
      }
      Hold((stack.depth == 0) == (i == 0) && (stack.flags == box::kStackOther) == (i == 0),
           "stack %d has %d frames and flags %d", i, stack.depth, stack.flags);
      Hold(sums.freed_objects <= sums.allocated_objects && sums.freed_bytes <= sums.allocated_bytes,
           "stack %d freed more than it allocated: %d of %d bytes", i, sums.freed_bytes,
           sums.allocated_bytes);
      Shape& shape = state_.shapes[i];
      shape.flags = stack.flags;
      for (uint32_t k = 0; k < stack.depth; ++k) {
        box::Location location = {};
        Hold(reader_.location(stack.frames[k], &location),
             "stack %d has frame %d at location %d, which is not published", i, k, stack.frames[k]);
        shape.pcs.push_back(location.pc);
      }
      if ((stack.flags & (box::kStackTruncated | box::kStackIncomplete)) != 0) {
        ++state_.truncated_or_incomplete;
      }
      state_.stacks[i] = sums;
    }
  }

  void Samples() {
    const uint64_t unit = reader_.header().regions[box::kSamples].capacity / box::kSampleShares;
    uint64_t in_use = 0;
    for (uint32_t level = 0; level < reader_.header().sample_levels; ++level) {
      in_use += unit << (2 * level);
    }
    for (uint64_t i = 0; i < reader_.sample_slots(); ++i) {
      box::Sample sample;
      if (!reader_.sample(i, &sample)) continue;
      Hold(i < in_use, "sample %d is above the %d levels in use", i,
           reader_.header().sample_levels);
      Hold(state_.samples.emplace(sample.address, sample).second, "two samples have address %#x",
           sample.address);
      Hold(sample.address % 8 == 0 && box::SizeOf(sample) < kLargestBlock &&
               sample.weight >= (uint64_t{1} << box::kObjectShift),
           "sample %d is not filled: address %#x, size %d, weight %d", i, sample.address,
           box::SizeOf(sample), sample.weight);
      Hold(state_.stacks.contains(sample.stack), "sample %d is of stack %d, which is not published",
           i, sample.stack);
    }
  }

  template <typename Read>
  void Timeline(const char* name, box::Reader::Range range, Read read) {
    uint64_t last = 0;
    int missing = 0;
    for (uint64_t i = range.first; i < range.end; ++i) {
      box::TimelinePoint point;
      if (!read(i, &point)) {
        ++missing;
        continue;
      }
      Hold(point.time_mono >= last && point.time_mono >= reader_.header().opened_mono,
           "%s: point %d goes back in time", name, i);
      last = point.time_mono;
    }
    // The slot that the next point is being written to.
    Hold(missing <= 1, "%s: %d points are missing", name, missing);
  }

  void Events() {
    const box::Reader::Range range = reader_.events();
    for (uint64_t i = range.first; i < range.end; ++i) {
      box::Event event;
      if (!reader_.event(i, &event)) continue;
      Hold(event.kind >= 1 && event.kind <= 9 && event.time_mono >= reader_.header().opened_mono,
           "event %d is published but not filled", i);
    }
  }

  const std::byte* data_;
  const box::Reader& reader_;
  BoxState& state_;
  Faults& faults_;
};

}  // namespace

BoxState CheckBox(const std::byte* data, size_t bytes, Faults* faults) {
  BoxState state;
  base::Text<256> problem;
  box::Reader reader;
  if (!reader.Open(data, bytes, &problem)) {
    Header header = {};
    if (bytes >= sizeof(header))
      std::copy_n(data, sizeof(header), reinterpret_cast<std::byte*>(&header));
    if (header.state != static_cast<uint32_t>(box::State::kStarting)) {
      faults->push_back(std::string(problem.view()));
    }
    return state;
  }
  state.open = true;
  state.header = reader.header();
  Checker(data, reader, &state, faults).Run();
  return state;
}

void CheckProfile(const std::byte* data, size_t bytes, Faults* faults) {
  base::Text<256> problem;
  box::Reader reader;
  if (!reader.Open(data, bytes, &problem)) return;
  const auto profile = profile::FromBox(reader, {.time_utc = 1});
  if (!profile.ok()) {
    faults->push_back(profile.status().ToString());
    return;
  }
  std::set<uint64_t> addresses;
  for (const auto& location : profile->location()) {
    if (!addresses.insert(location.address()).second) {
      faults->push_back(absl::StrFormat("profile: two locations at %#x", location.address()));
    }
    const uint64_t mapping_id = location.mapping_id();
    if (mapping_id == 0 || mapping_id > static_cast<uint64_t>(profile->mapping_size())) {
      faults->push_back(absl::StrFormat("profile: location %d has no mapping", location.id()));
      continue;
    }
    const auto& mapping = profile->mapping(static_cast<int>(mapping_id) - 1);
    if (location.address() < mapping.memory_start() ||
        location.address() >= mapping.memory_limit()) {
      faults->push_back(
          absl::StrFormat("profile: location %d is outside of its mapping", location.id()));
    }
  }
  for (const auto& sample : profile->sample()) {
    const bool positive = std::all_of(sample.value().begin(), sample.value().end(),
                                      [](int64_t value) { return value >= 0; });
    if (!positive || sample.location_id().empty() || sample.value_size() != 4 ||
        sample.value(2) > sample.value(0) || sample.value(3) > sample.value(1)) {
      faults->push_back("profile: a sample has impossible values");
    }
  }
}

Disagreement Compare(const BoxState& state) {
  struct Live {
    uint64_t objects = 0;
    uint64_t bytes = 0;
  };
  std::map<uint64_t, Live> by_samples;
  for (const auto& [address, sample] : state.samples) {
    Live& live = by_samples[sample.stack];
    live.objects += sample.weight;
    live.bytes += box::WeightedBytes(box::SizeOf(sample), sample.weight);
  }
  Disagreement result;
  uint64_t allocated = 0;
  uint64_t freed = 0;
  for (const auto& [index, sums] : state.stacks) {
    const Live& live = by_samples[index];
    const uint64_t objects = Distance(live.objects, sums.allocated_objects - sums.freed_objects);
    const uint64_t bytes = Distance(live.bytes, sums.allocated_bytes - sums.freed_bytes);
    if (objects != 0 || bytes != 0) ++result.stacks;
    result.objects += box::WholeObjects(objects);
    result.bytes += box::WholeBytes(bytes);
    allocated += sums.allocated_bytes;
    freed += sums.freed_bytes;
  }
  result.header = box::WholeBytes(Distance(allocated, state.totals.allocated_bytes)) +
                  box::WholeBytes(Distance(freed, state.totals.freed_bytes));
  result.live_count = Distance(state.samples.size(), state.totals.samples_live());
  return result;
}

void CheckOrder(const BoxState& before, const BoxState& after, Faults* faults) {
  const auto grows = [faults](const char* what, uint64_t from, uint64_t to) {
    if (to < from) faults->push_back(absl::StrFormat("%s fell from %d to %d", what, from, to));
  };
  if (before.open && !after.open) faults->push_back("the box is no longer open");
  grows("allocated bytes", before.totals.allocated_bytes, after.totals.allocated_bytes);
  grows("freed bytes", before.totals.freed_bytes, after.totals.freed_bytes);
  grows("samples taken", before.totals.samples_taken, after.totals.samples_taken);
  grows("sample levels", before.header.sample_levels, after.header.sample_levels);
  grows("modules", before.modules, after.modules);
  grows("locations", before.locations, after.locations);
  grows("placed locations", before.placed, after.placed);
  for (const auto& [index, sums] : before.stacks) {
    const auto found = after.stacks.find(index);
    if (found == after.stacks.end()) {
      faults->push_back(absl::StrFormat("stack %d is gone", index));
      continue;
    }
    if (after.shapes.at(index) != before.shapes.at(index)) {
      faults->push_back(absl::StrFormat("stack %d is another one now", index));
    }
    grows("allocated objects of a stack", sums.allocated_objects, found->second.allocated_objects);
    grows("allocated bytes of a stack", sums.allocated_bytes, found->second.allocated_bytes);
    grows("freed objects of a stack", sums.freed_objects, found->second.freed_objects);
    grows("freed bytes of a stack", sums.freed_bytes, found->second.freed_bytes);
  }
}

Passing CompareSamples(const BoxState& before, const BoxState& state, const BoxState& after) {
  const auto same = [](const box::Sample& a, const box::Sample& b) {
    return box::SizeOf(a) == box::SizeOf(b) && a.weight == b.weight && a.stack == b.stack;
  };
  const auto holds = [&](const BoxState& other, uint64_t address, const box::Sample& sample) {
    const auto found = other.samples.find(address);
    return found != other.samples.end() && same(found->second, sample);
  };
  Passing passing;
  for (const auto& [address, sample] : state.samples) {
    if (!holds(before, address, sample) && !holds(after, address, sample)) ++passing.strange;
  }
  for (const auto& [address, sample] : before.samples) {
    if (holds(after, address, sample) && !holds(state, address, sample)) ++passing.missing;
  }
  return passing;
}

std::vector<std::byte> ReadBytes(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status = {};
  if (fd < 0 || fstat(fd, &status) != 0) {
    if (fd >= 0) close(fd);
    return {};
  }
  std::vector<std::byte> bytes(static_cast<size_t>(status.st_size));
  size_t have = 0;
  while (have < bytes.size()) {
    const ssize_t got =
        pread(fd, bytes.data() + have, bytes.size() - have, static_cast<off_t>(have));
    if (got <= 0) break;
    have += static_cast<size_t>(got);
  }
  close(fd);
  bytes.resize(have);
  return bytes;
}

}  // namespace heapflare::test
