#include "lib/target/box_file.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_format.h"
#include "lib/box/totals.h"
#include "lib/target/files.h"

namespace heapflare::target {
namespace {

constexpr uint64_t kPage = 4096;

// Reads [from, to) to its place in `memory`; holes and what is beyond the end stay zero.
absl::Status ReadRange(const std::string& path, int fd, std::byte* memory, uint64_t from,
                       uint64_t to) {
  while (from < to) {
    const off_t data = lseek(fd, static_cast<off_t>(from), SEEK_DATA);
    if (data < 0 && errno == ENXIO) return absl::OkStatus();  // only a hole is left
    // A file system that knows no holes refuses the question: everything is data.
    uint64_t end = to;
    if (data >= 0) {
      from = static_cast<uint64_t>(data);
      const off_t hole = lseek(fd, data, SEEK_HOLE);
      if (hole > data) end = std::min(to, static_cast<uint64_t>(hole));
    }
    while (from < end) {
      const ssize_t got = pread(fd, memory + from, end - from, static_cast<off_t>(from));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return FileError(path, "cannot be read", errno);
      if (got == 0) return absl::OkStatus();
      from += static_cast<uint64_t>(got);
    }
  }
  return absl::OkStatus();
}

absl::Status OpenReader(const std::string& path, const std::byte* data, uint64_t bytes,
                        box::Reader* reader) {
  base::Text<256> problem;
  if (reader->Open(data, bytes, &problem)) return absl::OkStatus();
  return absl::DataLossError(absl::StrFormat("%s: %s", path, problem.view()));
}

// A record that is published refers to records that were published before. The box may grow while
// it is read: so what refers is read before what it refers to, and the header, which says how far
// the regions are filled, last.
constexpr box::RegionId kAllRegions[] = {
    box::kEvents, box::kRecent, box::kHistory,   box::kGrowth,  box::kSamples,
    box::kStacks, box::kFrames, box::kLocations, box::kModules, box::kStrings};
constexpr box::RegionId kTimelineRegions[] = {box::kRecent, box::kHistory};

}  // namespace

void BoxFile::Unmap::operator()(std::byte* memory) const { munmap(memory, bytes); }

absl::StatusOr<BoxFile> BoxFile::Load(const std::string& path, Parts parts) {
  auto file = OpenRegular(path);
  if (!file.ok()) return file.status();
  const int fd = file->fd.get();
  const uint64_t bytes =
      std::clamp(file->bytes, kPage, static_cast<uint64_t>(box::kMaximumFileBytes));

  // Zero pages cost nothing until something is read into them.
  void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return FileError(path, "no memory to read it", errno);
  BoxFile box;
  box.path_ = path;
  box.memory_ = {static_cast<std::byte*>(mapped), Unmap{bytes}};
  box.reader_ = std::make_unique<box::Reader>();
  std::byte* const memory = box.memory_.get();
  const uint64_t present = std::min(file->bytes, bytes);

  absl::Status status = ReadRange(path, fd, memory, 0, std::min(present, kPage));
  if (status.ok()) status = OpenReader(path, memory, present, box.reader_.get());
  if (!status.ok()) return status;
  // A column of kGrowth counts if it was the same one before and after its values were read.
  const box::Header before = box.header();
  const auto read_regions = [&](const auto& regions) {
    for (const box::RegionId id : regions) {
      const box::Region region = box.header().regions[id];
      const uint64_t end = region.offset + region.capacity * region.record_bytes;
      if (status.ok()) status = ReadRange(path, fd, memory, region.offset, std::min(end, present));
    }
  };
  if (parts == Parts::kAll) {
    read_regions(kAllRegions);
  } else {
    read_regions(kTimelineRegions);
  }
  if (status.ok()) status = ReadRange(path, fd, memory, 0, std::min(present, kPage));
  auto* const header = reinterpret_cast<box::Header*>(memory);
  for (uint32_t i = 0; i < box::kGrowthColumns; ++i) {
    if (header->growth_mono[i] != before.growth_mono[i]) header->growth_mono[i] = 0;
  }
  if (status.ok()) status = OpenReader(path, memory, present, box.reader_.get());
  if (!status.ok()) return status;
  return box;
}

uint64_t BoxFile::live_bytes() const {
  return box::WholeBytes(box::SumTallies(header()).live_bytes());
}

bool BoxFile::LastPoint(box::TimelinePoint* point) const {
  // The newest slot can be in the making; the one before is then the last.
  const auto last = [point](box::Reader::Range range, auto read) {
    for (uint64_t number = range.end; number > range.first && range.end - number < 4; --number) {
      if (read(number - 1, point)) return true;
    }
    return false;
  };
  return last(reader_->recent(),
              [this](uint64_t i, box::TimelinePoint* p) { return reader_->recent(i, p); }) ||
         last(reader_->history(),
              [this](uint64_t i, box::TimelinePoint* p) { return reader_->history(i, p); });
}

absl::StatusOr<box::Header> ReadBoxHeader(const std::string& path) {
  auto file = OpenRegular(path);
  if (!file.ok()) return file.status();
  alignas(box::Header) std::byte page[kPage] = {};
  absl::Status status =
      ReadRange(path, file->fd.get(), page, 0, std::min<uint64_t>(file->bytes, kPage));
  box::Reader reader;
  if (status.ok()) {
    status = OpenReader(path, page, std::min<uint64_t>(file->bytes, kPage), &reader);
  }
  if (!status.ok()) return status;
  return reader.header();
}

}  // namespace heapflare::target
