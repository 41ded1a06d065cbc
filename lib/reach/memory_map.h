// What memory of this process can hold references: its mappings, from /proc/self/smaps, and which
// of their pages are there.
//
// All memory that somebody can have stored into counts, whatever its protection is now: a service
// that protects a page against reading still refers to what it wrote there. So: private mappings as
// far as they have pages of their own (of a file's: the changed ones), and shared ones that are
// writable or could be made so. Pages that were never touched are not read: reading would make
// them, and a reservation of terabytes would never end. Not memory of devices, where reading can do
// anything; not what the caller excludes, which is its own.
//
// Raw system calls; memory is one mapping that grows. A process maps and unmaps meanwhile: what was
// read is right for a forked child or while all threads are stopped, and else a moment old. Not
// thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "lib/base/line_reader.h"

namespace heapflare::reach {

enum class RangeKind : uint32_t {
  kAnonymous,  // mmap, threads' stacks, what follows a program's data
  kHeap,       // the program break's: "[heap]"
  kStack,      // the first thread's: "[stack]"
  kFile,
  kDevice,  // memory of a device
  kKernel,  // [vdso], [vvar], [vsyscall]
  kOwn,     // files in memory that are ours, by their names
};

// One mapping.
struct MemoryRange {
  uint64_t start;
  uint64_t limit;
  uint64_t resident;   // bytes in memory or swap
  uint64_t anonymous;  // of these the process's own: not a file's as it is on disk
  RangeKind kind;
  bool readable;
  bool writable;
  bool executable;
  bool shared;
  bool may_write;  // it can be made writable
  bool exact;      // `resident` and `anonymous` were counted by the kernel

  uint64_t bytes() const { return limit - start; }
  bool Contains(uint64_t address) const { return address >= start && address < limit; }
  // Whether it can hold a reference.
  bool MayRefer() const {
    if (kind == RangeKind::kDevice || kind == RangeKind::kKernel || kind == RangeKind::kOwn) {
      return false;
    }
    return shared ? may_write : anonymous > 0;
  }
};

class MemoryMap {
 public:
  MemoryMap() = default;
  ~MemoryMap() { Release(); }
  MemoryMap(const MemoryMap&) = delete;
  MemoryMap& operator=(const MemoryMap&) = delete;

  // Before Read: memory that is the searcher's own. False: too many.
  bool Exclude(uint64_t start, uint64_t bytes);

  // Of the calling process. 0 or negative errno. From smaps, for which the kernel visits every page
  // and holds off whoever maps memory; or from maps, which costs little: then every private mapping
  // may refer, and only PresentPages knows what of it is there.
  int Read(bool from_smaps = true);
  // The same of an open file of either form, which it takes over.
  int ReadFrom(int fd);
  void Release();

  uint64_t count() const { return count_; }
  const MemoryRange& range(uint64_t number) const { return ranges_[number]; }
  // The mapping that holds the address; nullptr.
  const MemoryRange* Find(uint64_t address) const;
  // The mapping just below; nullptr if there is a gap.
  const MemoryRange* Below(const MemoryRange& range) const;

  // Calls visit(start, limit) for what is not excluded of [start, limit).
  template <typename Visit>
  void ForEachPart(uint64_t start, uint64_t limit, Visit visit) const {
    while (start < limit) {
      uint64_t end = limit;
      bool out = false;
      for (uint32_t i = 0; i < excluded_count_; ++i) {
        const Excluded& own = excluded_[i];
        if (own.start <= start && start < own.limit) {
          out = true;
          end = own.limit < limit ? own.limit : limit;
          break;
        }
        if (own.start > start && own.start < end) end = own.start;
      }
      if (!out) visit(start, end);
      start = end;
    }
  }

  // Its own memory.
  uint64_t memory_start() const { return reinterpret_cast<uint64_t>(ranges_); }
  uint64_t memory_bytes() const { return capacity_ * sizeof(MemoryRange); }

 private:
  struct Excluded {
    uint64_t start;
    uint64_t limit;
  };
  static constexpr uint32_t kMostExcluded = 32;

  bool Append(const MemoryRange& range);

  MemoryRange* ranges_ = nullptr;
  uint64_t count_ = 0;
  uint64_t capacity_ = 0;
  Excluded excluded_[kMostExcluded] = {};
  uint32_t excluded_count_ = 0;
};

// The dead part of a thread's stack: [start of its mapping, stack pointer), less what leaf functions
// may use below it. Only where it is certain that nothing but this stack lies there: the first
// thread's, or one that glibc made, which has its thread control block (`thread_pointer`) at the top
// and a guard below. A thread that runs on a fibre's stack or a signal's has none. 0: none is known.
uint64_t DeadStackLimit(const MemoryMap& map, const MemoryRange& range, uint64_t stack_pointer,
                        uint64_t thread_pointer);

// Which pages of a mapping are there and can hold a reference.
class PresentPages {
 public:
  PresentPages() = default;
  ~PresentPages() { Close(); }
  PresentPages(const PresentPages&) = delete;
  PresentPages& operator=(const PresentPages&) = delete;

  static constexpr size_t kBufferBytes = 64 << 10;

  // In the process whose memory is looked at. `buffer` of kBufferBytes stays the caller's.
  // `with_swapped`: pages that are in swap count, and reading them brings them back.
  void Open(void* buffer, bool with_swapped);
  void Close();

  // The first run of such pages in [from, limit), within `range`. False: there are none left. Runs
  // that touch may come apart.
  bool Next(const MemoryRange& range, uint64_t from, uint64_t limit, uint64_t* run_start,
            uint64_t* run_limit);

  // Of pages passed over because they are in swap.
  uint64_t bytes_swapped() const { return bytes_swapped_; }

 private:
  bool Look(const MemoryRange& range, uint64_t from, uint64_t limit);
  bool IsPresent(const MemoryRange& range, uint64_t page);

  int pagemap_ = -1;
  uint64_t* entries_ = nullptr;  // of pagemap; or bytes of mincore
  uint64_t window_start_ = 0;
  uint64_t window_limit_ = 0;
  uint64_t bytes_swapped_ = 0;
  bool with_swapped_ = false;
  bool by_mincore_ = false;
};

// Fields of smaps below a mapping's own line, into `range`. False if the line is none of these.
bool ParseSmapsField(std::string_view line, MemoryRange* range);

}  // namespace heapflare::reach
