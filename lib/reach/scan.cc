#include "lib/reach/scan.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "lib/base/line_reader.h"
#include "lib/base/parse.h"
#include "lib/base/syscall.h"
#include "lib/base/text.h"
#include "lib/reach/kernel_pointers.h"

namespace heapflare::reach {
namespace {

constexpr uint64_t kDataBytes = 256 << 10;
constexpr uint64_t kWord = sizeof(uint64_t);
// Pointers in packed structures. Finer costs more and finds chance more often.
constexpr uint64_t kStride = 4;
// A multiple of a huge page, which is not split by it.
constexpr uint64_t kGiveBackStep = 8 << 20;

// A reference that lies in a block.
struct Edge {
  uint32_t from;
  uint32_t to;
};
constexpr uint64_t kMostEdges =
    (kScanWorkspace - kDataBytes - PresentPages::kBufferBytes) / sizeof(Edge);

class Scanner {
 public:
  explicit Scanner(const ScanOptions& options)
      : options_(options), blocks_(*options.blocks), result_(*options.result) {
    auto* next = static_cast<std::byte*>(options.workspace);
    data_ = next;
    next += kDataBytes;
    pages_buffer_ = next;
    next += PresentPages::kBufferBytes;
    edges_ = reinterpret_cast<Edge*>(next);
    next += kMostEdges * sizeof(Edge);
    queue_ = reinterpret_cast<uint32_t*>(next);
    reached_ = reinterpret_cast<uint8_t*>(queue_ + blocks_.count());
  }

  void Run() {
    const int64_t started = base::MonotonicNanoseconds();
    reader_.Open();
    pages_.Open(pages_buffer_, options_.copy);
    SearchWords();
    SearchMemory();
    SearchKernel();
    Judge();
    result_.bytes_unread = reader_.bytes_unread() + pages_.bytes_swapped() + bytes_passed_over_;
    result_.nanoseconds = static_cast<uint64_t>(base::MonotonicNanoseconds() - started);
  }

 private:
  // A word that lies in no block.
  void Root(uint64_t word) {
    const uint32_t block = blocks_.Find(word);
    if (block != BlockIndex::kNone) reached_[block] = 1;
  }
  static void VisitRoot(void* self, uint64_t word) { static_cast<Scanner*>(self)->Root(word); }

  void SearchWords() {
    for (uint64_t i = 0; i < options_.word_count; ++i) Root(options_.words[i]);
    for (uint32_t i = 0; i < options_.threads.count; ++i) {
      const StoppedThread& thread = options_.threads.threads[i];
      if (!thread.seen) continue;
      for (uint32_t at = 0; at + kWord <= thread.register_bytes; at += kWord) {
        uint64_t word = 0;
        memcpy(&word, thread.registers + at, kWord);
        Root(word);
      }
    }
  }

  void SearchKernel() {
    const bool epoll = VisitEpollData(options_.process, options_.spared_thread, VisitRoot, this);
    const bool timers = VisitTimers(options_.process, VisitRoot, this);
    result_.kernel_seen = epoll && timers;
  }

  void SearchMemory() {
    for (uint32_t i = 0; i < options_.own_count; ++i) {
      map_.Exclude(options_.own[i].start, options_.own[i].bytes);
    }
    result_.error = map_.Read(options_.copy);
    if (result_.error != 0) return;
    map_.Exclude(map_.memory_start(), map_.memory_bytes());
    for (uint64_t i = 0; i < map_.count(); ++i) {
      const MemoryRange& range = map_.range(i);
      if (!range.MayRefer()) {
        if (range.kind == RangeKind::kDevice) bytes_passed_over_ += range.resident;
        continue;
      }
      map_.ForEachPart(LiveStart(range), range.limit,
                       [&](uint64_t start, uint64_t limit) { SearchPart(range, start, limit); });
    }
  }

  // Where a mapping begins to be in use, if it is one thread's stack.
  uint64_t LiveStart(const MemoryRange& range) const {
    uint64_t start = range.start;
    uint32_t stacks = 0;
    for (uint32_t i = 0; i < options_.threads.count && stacks < 2; ++i) {
      const StoppedThread& thread = options_.threads.threads[i];
      if (!thread.seen || !range.Contains(thread.stack_pointer)) continue;
      ++stacks;
      start = std::max(range.start,
                       DeadStackLimit(map_, range, thread.stack_pointer, thread.thread_pointer));
    }
    return stacks == 1 ? start : range.start;
  }

  void SearchPart(const MemoryRange& range, uint64_t start, uint64_t limit) {
    uint64_t run = 0;
    uint64_t end = 0;
    for (uint64_t at = start; pages_.Next(range, at, limit, &run, &end); at = end) {
      if (options_.copy) {
        SearchAndGiveBack(range, run, end);
      } else {
        SearchRun(range, run, end);
      }
    }
  }

  void SearchRun(const MemoryRange& range, uint64_t start, uint64_t limit) {
    start = (start + kWord - 1) / kWord * kWord;
    // Pieces overlap by a word, which may lie across their border.
    for (uint64_t at = start; at + kWord <= limit; at += kDataBytes - kWord) {
      const uint64_t bytes = std::min(kDataBytes, limit - at);
      if (reader_.Read(at, data_, bytes, !range.readable)) SearchBytes(at, bytes);
      result_.bytes_scanned += bytes;
      if (at + bytes == limit) return;
    }
  }

  // In steps, each of which is given back before the next one is read.
  void SearchAndGiveBack(const MemoryRange& range, uint64_t start, uint64_t limit) {
    while (start < limit) {
      const uint64_t next = std::min(limit, (start / kGiveBackStep + 1) * kGiveBackStep);
      // A word may lie across the border.
      SearchRun(range, start, std::min(limit, next + kWord));
      GiveBack(range, start, next);
      start = next;
    }
  }

  void SearchBytes(uint64_t start, uint64_t bytes) {
    for (uint64_t at = 0; at + kWord <= bytes; at += kStride) {
      uint64_t word = 0;
      memcpy(&word, data_ + at, kWord);
      const uint32_t block = blocks_.Find(word);
      if (block != BlockIndex::kNone && reached_[block] == 0) [[unlikely]] {
        Refer(start + at, block);
      }
    }
  }

  void Refer(uint64_t from, uint32_t block) {
    const uint32_t holder = blocks_.Find(from);
    if (holder == BlockIndex::kNone || !Holds(blocks_.block(holder), from)) {
      reached_[block] = 1;
      return;
    }
    if (edge_count_ == kMostEdges) {
      reached_[block] = 1;
      return;
    }
    edges_[edge_count_++] = {.from = holder, .to = block};
  }
  // Not the address past its end.
  static bool Holds(const Block& block, uint64_t address) {
    return address - block.address < block.size;
  }

  // Memory that nobody changes any more is searched once; the service's next store to it then finds
  // it unshared, and copies nothing.
  void GiveBack(const MemoryRange& range, uint64_t start, uint64_t limit) {
    constexpr uint64_t kWorthIt = 1 << 20;
    constexpr uint64_t kPage = 4096;
    if (range.shared || range.bytes() < kWorthIt ||
        (range.kind != RangeKind::kHeap && range.kind != RangeKind::kAnonymous)) {
      return;
    }
    start = (start + kPage - 1) / kPage * kPage;
    limit = limit / kPage * kPage;
    if (start >= limit) return;
    base::Syscall(SYS_madvise, static_cast<long>(start), static_cast<long>(limit - start),
                  MADV_DONTNEED);
  }

  // Calls visit(to) for each reference that lies in the block.
  template <typename Visit>
  void ForEachEdge(uint32_t from, Visit visit) const {
    const Edge* const end = edges_ + edge_count_;
    const Edge* edge = std::lower_bound(
        static_cast<const Edge*>(edges_), end, from,
        [](const Edge& candidate, uint32_t wanted) { return candidate.from < wanted; });
    for (; edge != end && edge->from == from; ++edge) visit(edge->to);
  }

  // Marks as reached what the first `end` blocks of the queue lead to, and them.
  void Spread(uint32_t end) {
    for (uint32_t next = 0; next < end; ++next) {
      ForEachEdge(queue_[next], [&](uint32_t to) {
        if (reached_[to] != 0) return;
        reached_[to] = 1;
        queue_[end++] = to;
      });
    }
  }

  void Judge() {
    std::sort(edges_, edges_ + edge_count_,
              [](const Edge& a, const Edge& b) { return a.from < b.from; });
    // What reachable blocks refer to is reachable.
    uint32_t heads = 0;
    for (uint32_t block = 0; block < blocks_.count(); ++block) {
      if (reached_[block] != 0) queue_[heads++] = block;
    }
    Spread(heads);
    // Of the others, those that no other one refers to are lost by themselves, the rest with them.
    Verdict* const verdicts = options_.verdicts;
    for (uint32_t block = 0; block < blocks_.count(); ++block) {
      verdicts[block] = reached_[block] != 0 ? Verdict::kReachable : Verdict::kUnreachable;
    }
    for (uint64_t i = 0; i < edge_count_; ++i) {
      if (reached_[edges_[i].to] == 0) verdicts[edges_[i].to] = Verdict::kIndirect;
    }
    heads = 0;
    for (uint32_t block = 0; block < blocks_.count(); ++block) {
      if (verdicts[block] != Verdict::kUnreachable) continue;
      reached_[block] = 1;
      queue_[heads++] = block;
    }
    Spread(heads);
    // What is left are rings, one block that refers to itself among them, and what they lead to: the
    // first of each stands for it.
    for (uint32_t block = 0; block < blocks_.count(); ++block) {
      if (reached_[block] != 0) continue;
      verdicts[block] = Verdict::kUnreachable;
      reached_[block] = 1;
      queue_[0] = block;
      Spread(1);
    }
  }

  const ScanOptions& options_;
  const BlockIndex& blocks_;
  ScanResult& result_;
  MemoryMap map_;
  MemoryReader reader_;
  PresentPages pages_;
  std::byte* data_;
  void* pages_buffer_;
  Edge* edges_;
  uint64_t edge_count_ = 0;
  uint32_t* queue_;
  uint8_t* reached_;
  uint64_t bytes_passed_over_ = 0;
};

// Adds up the fields of these names, in kB, of a file like smaps.
template <size_t kNames>
uint64_t SumOfFields(const char* path, const std::string_view (&names)[kNames]) {
  char buffer[512];
  uint64_t sum = 0;
  base::LineReader lines(base::Open(path, O_RDONLY), buffer, sizeof(buffer));
  for (std::string_view line; lines.ok() && lines.Next(&line);) {
    std::string_view name;
    base::TakeUntil(':', &line, &name);
    if (std::find(names, names + kNames, name) == names + kNames) continue;
    std::string_view rest = base::TrimSpace(line);
    std::string_view number;
    base::TakeUntil(' ', &rest, &number);
    sum += base::ParseNumber(number).value_or(0) * 1024;
  }
  return sum;
}

}  // namespace

void Scan(const ScanOptions& options) {
  Scanner scanner(options);
  scanner.Run();
  options.result->done.store(1, std::memory_order_release);
}

uint64_t PrivateBytes(int process) {
  constexpr std::string_view kPrivate[] = {"Private_Clean", "Private_Dirty"};
  constexpr std::string_view kTables[] = {"VmPTE"};
  base::Text<64> path("/proc/");
  path.AddNumber(static_cast<uint64_t>(process)).Add("/smaps_rollup");
  const uint64_t pages = SumOfFields(path.c_str(), kPrivate);
  path.Clear();
  path.Add("/proc/").AddNumber(static_cast<uint64_t>(process)).Add("/status");
  return pages + SumOfFields(path.c_str(), kTables);
}

uint64_t PageTableBytes() {
  constexpr std::string_view kTables[] = {"VmPTE"};
  return SumOfFields("/proc/self/status", kTables);
}

}  // namespace heapflare::reach
