#include "lib/reach/memory_map.h"

#include <errno.h>
#include <sys/mman.h>

#include <algorithm>

#include "lib/base/maps_reader.h"
#include "lib/base/parse.h"
#include "lib/base/syscall.h"

namespace heapflare::reach {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kFirstCapacity = 1024;

RangeKind KindOf(const base::MapsLine& line) {
  const std::string_view path = line.path;
  if (path == "[heap]") return RangeKind::kHeap;
  if (path == "[stack]") return RangeKind::kStack;
  if (path == "[vdso]" || path == "[vsyscall]" || path.substr(0, 5) == "[vvar") {
    return RangeKind::kKernel;
  }
  constexpr std::string_view kOurs = "/memfd:heapflare-";
  if (path.substr(0, kOurs.size()) == kOurs) return RangeKind::kOwn;
  // Where VmFlags does not say it. /dev/zero and /dev/shm are memory.
  if (path.substr(0, 5) == "/dev/" && path.substr(0, 9) != "/dev/zero" &&
      path.substr(0, 9) != "/dev/shm/") {
    return RangeKind::kDevice;
  }
  return line.inode != 0 || (!path.empty() && path.front() == '/') ? RangeKind::kFile
                                                                   : RangeKind::kAnonymous;
}

bool TakeKilobytes(std::string_view rest, uint64_t* bytes) {
  rest = base::TrimSpace(rest);
  if (rest.size() < 3 || rest.substr(rest.size() - 3) != " kB") return false;
  const auto number = base::ParseNumber(base::TrimSpace(rest.substr(0, rest.size() - 3)));
  if (!number || *number > UINT64_MAX / 1024) return false;
  *bytes = *number * 1024;
  return true;
}

uint64_t SaturatingAdd(uint64_t a, uint64_t b) { return a + b < a ? UINT64_MAX : a + b; }

}  // namespace

bool ParseSmapsField(std::string_view line, MemoryRange* range) {
  std::string_view name;
  base::TakeUntil(':', &line, &name);
  uint64_t bytes = 0;
  if (name == "Rss" && TakeKilobytes(line, &bytes)) {
    range->resident = SaturatingAdd(range->resident, bytes);
  } else if (name == "Anonymous" && TakeKilobytes(line, &bytes)) {
    range->anonymous = SaturatingAdd(range->anonymous, bytes);
  } else if (name == "Swap" && TakeKilobytes(line, &bytes)) {
    range->resident = SaturatingAdd(range->resident, bytes);
    range->anonymous = SaturatingAdd(range->anonymous, bytes);
  } else if ((name == "Private_Hugetlb" || name == "Shared_Hugetlb") &&
             TakeKilobytes(line, &bytes)) {
    // Counted nowhere else.
    range->resident = SaturatingAdd(range->resident, bytes);
    range->anonymous = SaturatingAdd(range->anonymous, bytes);
  } else if (name == "VmFlags") {
    range->may_write = false;
    for (std::string_view flag; base::TakeUntil(' ', &line, &flag);) {
      if (flag == "io" || flag == "pf") range->kind = RangeKind::kDevice;
      if (flag == "mw") range->may_write = true;
    }
  } else {
    return false;
  }
  return true;
}

bool MemoryMap::Exclude(uint64_t start, uint64_t bytes) {
  if (bytes == 0) return true;
  if (excluded_count_ == kMostExcluded) return false;
  excluded_[excluded_count_++] = {start, start + bytes};
  return true;
}

int MemoryMap::Read(bool from_smaps) {
  if (from_smaps) {
    const int smaps = base::Open("/proc/self/smaps", O_RDONLY);
    if (smaps >= 0 && ReadFrom(smaps) == 0 && count_ > 0) return 0;
  }
  const int maps = base::OpenOwnMaps();
  if (maps < 0) return maps;
  return ReadFrom(maps);
}

int MemoryMap::ReadFrom(int fd) {
  count_ = 0;
  char buffer[1024];
  base::LineReader lines(fd, buffer, sizeof(buffer));
  bool detailed = false;
  for (std::string_view text; lines.Next(&text);) {
    // The numbers of a mapping begin in lower case, names of fields in upper case.
    if (!text.empty() && text.front() >= 'A' && text.front() <= 'Z') {
      if (count_ > 0) detailed = ParseSmapsField(text, &ranges_[count_ - 1]) || detailed;
      continue;
    }
    base::MapsLine line = {};
    if (!base::ParseMapsLine(text, &line) || line.start >= line.limit) continue;
    if (!Append({.start = line.start,
                 .limit = line.limit,
                 .resident = 0,
                 .anonymous = 0,
                 .kind = KindOf(line),
                 .readable = line.readable,
                 .writable = line.writable,
                 .executable = line.executable,
                 .shared = line.shared,
                 .may_write = line.writable,
                 .exact = false})) {
      return -ENOMEM;
    }
  }
  if (!lines.complete()) return -EIO;
  for (uint64_t i = 0; i < count_; ++i) {
    MemoryRange& range = ranges_[i];
    range.exact = detailed;
    if (!detailed) range.resident = range.anonymous = range.bytes();
  }
  return 0;
}

bool MemoryMap::Append(const MemoryRange& range) {
  if (count_ == capacity_) {
    const uint64_t more = capacity_ == 0 ? kFirstCapacity : capacity_ * 2;
    const uint64_t bytes = more * sizeof(MemoryRange);
    void* memory = nullptr;
    if (ranges_ == nullptr) {
      memory = base::Map(nullptr, bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
    } else {
      const long moved = base::Syscall(SYS_mremap, base::Arg(ranges_),
                                       static_cast<long>(capacity_ * sizeof(MemoryRange)),
                                       static_cast<long>(bytes), MREMAP_MAYMOVE);
      memory = base::Failed(moved) ? nullptr : reinterpret_cast<void*>(moved);
    }
    if (memory == nullptr) return false;
    ranges_ = static_cast<MemoryRange*>(memory);
    capacity_ = more;
  }
  ranges_[count_++] = range;
  return true;
}

void MemoryMap::Release() {
  if (ranges_ != nullptr) base::Unmap(ranges_, capacity_ * sizeof(MemoryRange));
  ranges_ = nullptr;
  count_ = capacity_ = 0;
}

const MemoryRange* MemoryMap::Find(uint64_t address) const {
  const MemoryRange* const first = ranges_;
  const MemoryRange* const end = first + count_;
  const MemoryRange* const after = std::upper_bound(
      first, end, address,
      [](uint64_t wanted, const MemoryRange& range) { return wanted < range.limit; });
  return after != end && after->Contains(address) ? after : nullptr;
}

const MemoryRange* MemoryMap::Below(const MemoryRange& range) const {
  if (&range == ranges_) return nullptr;
  const MemoryRange* const below = &range - 1;
  return below->limit == range.start ? below : nullptr;
}

uint64_t DeadStackLimit(const MemoryMap& map, const MemoryRange& range, uint64_t stack_pointer,
                        uint64_t thread_pointer) {
  constexpr uint64_t kRedZone = 128;  // of the x86_64 ABI
  if (!range.Contains(stack_pointer) || stack_pointer - range.start < kRedZone) return 0;
  const uint64_t limit = stack_pointer - kRedZone;
  if (range.kind == RangeKind::kStack) return limit;
  if (range.shared || range.kind != RangeKind::kAnonymous || !range.Contains(thread_pointer) ||
      thread_pointer < stack_pointer) {
    return 0;
  }
  const MemoryRange* const guard = map.Below(range);
  return guard != nullptr && !guard->readable && !guard->writable && !guard->executable ? limit : 0;
}

void PresentPages::Open(void* buffer, bool with_swapped) {
  Close();
  pagemap_ = base::Open("/proc/self/pagemap", O_RDONLY);
  entries_ = static_cast<uint64_t*>(buffer);
  with_swapped_ = with_swapped;
  window_start_ = window_limit_ = 0;
}

void PresentPages::Close() {
  if (pagemap_ >= 0) base::Close(pagemap_);
  pagemap_ = -1;
}

// What is known of the pages from `from` on; false: nothing, so they are read.
bool PresentPages::Look(const MemoryRange& range, uint64_t from, uint64_t limit) {
  // A forked child has no page tables of shared memory; the file's pages are what there is to see.
  by_mincore_ = range.shared || pagemap_ < 0;
  const uint64_t capacity = by_mincore_ ? kBufferBytes : kBufferBytes / sizeof(uint64_t);
  const uint64_t pages = std::min((limit - from) / kPage, capacity);
  window_start_ = from;
  window_limit_ = from + pages * kPage;
  if (by_mincore_) {
    return base::Syscall(SYS_mincore, static_cast<long>(from), static_cast<long>(pages * kPage),
                         base::Arg(entries_)) == 0;
  }
  const uint64_t bytes = pages * sizeof(uint64_t);
  return base::PRead(pagemap_, entries_, bytes, from / kPage * sizeof(uint64_t)) ==
         static_cast<long>(bytes);
}

bool PresentPages::IsPresent(const MemoryRange& range, uint64_t page) {
  const uint64_t number = (page - window_start_) / kPage;
  if (by_mincore_) return (reinterpret_cast<const uint8_t*>(entries_)[number] & 1) != 0;
  constexpr uint64_t kPresent = uint64_t{1} << 63;
  constexpr uint64_t kSwapped = uint64_t{1} << 62;
  constexpr uint64_t kOfFile = uint64_t{1} << 61;
  const uint64_t entry = entries_[number];
  if ((entry & kOfFile) != 0 && !range.shared) return false;
  if ((entry & kPresent) != 0) return true;
  if ((entry & kSwapped) == 0) return false;
  if (!with_swapped_) bytes_swapped_ += kPage;
  return with_swapped_;
}

bool PresentPages::Next(const MemoryRange& range, uint64_t from, uint64_t limit,
                        uint64_t* run_start, uint64_t* run_limit) {
  // `limit` need not be a page's start.
  if (from >= limit) return false;
  // Whole mappings that are in memory are not looked at page by page.
  if (range.exact && !range.shared && range.anonymous == range.bytes() && with_swapped_) {
    *run_start = from;
    *run_limit = limit;
    return from < limit;
  }
  const uint64_t begin = from;
  from -= from % kPage;
  while (from < limit) {
    if (from < window_start_ || from >= window_limit_) {
      if (!Look(range, from, (limit + kPage - 1) / kPage * kPage)) {
        *run_start = std::max(from, begin);
        *run_limit = std::min(window_limit_, limit);
        window_start_ = window_limit_ = 0;
        return true;
      }
    }
    const uint64_t end = std::min(window_limit_, limit);
    while (from < end && !IsPresent(range, from)) from += kPage;
    if (from >= end) continue;
    *run_start = std::max(from, begin);
    while (from < end && IsPresent(range, from)) from += kPage;
    *run_limit = std::min(from, limit);
    return true;
  }
  return false;
}

}  // namespace heapflare::reach
