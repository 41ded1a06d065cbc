#include "lib/recorder/leak_search.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include <algorithm>
#include <cstring>

#include "lib/base/clone.h"
#include "lib/base/syscall.h"
#include "lib/box/shared.h"
#include "lib/reach/block_index.h"
#include "lib/reach/kernel_pointers.h"
#include "lib/reach/memory_map.h"
#include "lib/reach/memory_reader.h"
#include "lib/reach/stopped_threads.h"
#include "lib/recorder/kernel_contents.h"
#include "lib/recorder/leak_memory.h"
#include "lib/recorder/next_allocator.h"
#include "lib/recorder/own_process.h"
#include "lib/recorder/range_set.h"
#include "lib/recorder/recorder.h"
#include "lib/recorder/stale_contents.h"
#include "lib/recorder/thread.h"

namespace heapflare::recorder {
namespace {

using reach::Block;
using reach::BlockIndex;
using reach::MemoryRange;

constexpr int64_t kLongest = 600'000'000'000;  // ns
constexpr int64_t kSecond = 1'000'000'000;
constexpr uint64_t kPage = 4096;
constexpr size_t kBufferBytes = 256 << 10;

// A block beyond what the index keeps of it; by its id.
struct Detail {
  uint32_t stack;
  uint32_t flags;
};
enum DetailFlag : uint32_t {
  kReached = 1,
  kInherited = 2,  // from before a fork
  kIsHead = 4,     // of leaks: nothing that was met before leads to it
  kMet = 8,        // while leaks were followed
};

class Mapped {
 public:
  Mapped() = default;
  ~Mapped() {
    if (memory_ != nullptr) base::Unmap(memory_, bytes_);
  }
  Mapped(const Mapped&) = delete;
  Mapped& operator=(const Mapped&) = delete;

  bool Take(uint64_t bytes) {
    bytes_ = (bytes + kPage) / kPage * kPage;
    memory_ = base::Map(nullptr, bytes_, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
    return memory_ != nullptr;
  }
  // It is somebody else's from now on.
  void Keep() { memory_ = nullptr; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(memory_);
  }
  uint64_t start() const { return reinterpret_cast<uint64_t>(memory_); }
  uint64_t bytes() const { return bytes_; }

 private:
  void* memory_ = nullptr;
  uint64_t bytes_ = 0;
};

class Search {
 public:
  Search(const ProgramFrame& frame, LeakResult* result) : frame_(frame), result_(*result) {}

  // On the thread that asked.
  void Run() {
    box::SampleTable& samples = recorder.samples;
    // Other threads go on allocating until they are stopped.
    const uint64_t room = samples.live() * 5 / 4 + (64 << 10);
    const uint64_t stacks = recorder.mapping.header().regions[box::kStacks].used;
    result_.stack_bytes = (stacks + 1024) * sizeof(StackLeaks);
    if (blocks_.Reserve(room) != 0 || !details_.Take(room * sizeof(Detail)) ||
        !pending_.Take(room * sizeof(uint32_t)) || !buffers_.Take(2 * kBufferBytes) ||
        !sums_.Take(result_.stack_bytes)) {
      result_.error = ENOMEM;
      return;
    }
    room_ = room;
    asking_thread_ = base::ThreadId();
    asking_thread_pointer_ = reinterpret_cast<uint64_t>(__builtin_thread_pointer());
    asking_stack_pointer_ = frame_.stack_pointer != 0
                                ? frame_.stack_pointer
                                : reinterpret_cast<uint64_t>(__builtin_frame_address(0));
    alternate_stack_ = reach::AlternateStack();
    parent_is_there_ = ParentIsThere();
    Collect();
    if (result_.error != 0) return;
    result_.stacks = sums_.as<StackLeaks>();
    result_.stack_count = stacks + 1024;
    result_.stack_bytes = sums_.bytes();
    sums_.Keep();
  }

 private:
  void Collect() {
    constexpr long kReadable = 1;
    const long dumpable = base::Syscall(SYS_prctl, PR_GET_DUMPABLE);
    if (dumpable == 0) base::Syscall(SYS_prctl, PR_SET_DUMPABLE, kReadable);
    reach::StopOptions options = {.process = OwnProcessId(),
                                  .spared_thread = ThreadOfRecorder(),
                                  .stop_budget_ns = 2 * kSecond,
                                  .declare_tracer = true,
                                  .without_stopping = !MayStop(),
                                  .while_stopped = &Search::WhileStopped,
                                  .context = this};
    int error = collector_.Start(options);
    if (error == 0) {
      // A heap of gigabytes takes seconds. Who takes much longer is stuck, and nobody waits for that.
      if (!collector_.Wait(base::MonotonicNanoseconds() + kLongest)) collector_.Kill();
      if (!collector_.finished() || !done_) error = -ETIMEDOUT;
    }
    if (dumpable == 0) base::Syscall(SYS_prctl, PR_SET_DUMPABLE, dumpable);
    const reach::StopResult stopped = collector_.result();
    result_.stop_error = options.without_stopping ? EPERM : -stopped.error;
    result_.threads_unseen = stopped.threads_unseen;
    if (error != 0) result_.error = -error;
  }

  static bool MayStop() {
    if (reach::MayTryPtrace() == reach::PtraceStanding::kFree) return true;
    // In a copy, which the filter may kill.
    const long child = base::ForkWithoutLibc(0);
    if (child == 0) base::Syscall(SYS_exit_group, reach::ProbePtrace() ? 0 : 1);
    if (base::Failed(child)) return false;
    int status = -1;
    constexpr int kAnyChild = 0x40000000;  // __WALL
    base::Syscall(SYS_wait4, child, base::Arg(&status), kAnyChild, 0);
    return status == 0;
  }

  // --- In the collector ---

  static void WhileStopped(void* self, const reach::StoppedThreads& threads) {
    auto* const search = static_cast<Search*>(self);
    search->threads_ = threads;
    search->all_stopped_ = search->AllStopped();
    search->Follow();
    search->done_ = true;
  }

  void Follow() {
    if (!ReadBooks() || !ReadMap()) return;
    reader_.Open();
    const LeakScene scene = {.map = &map_,
                             .blocks = &blocks_,
                             .reader = &reader_,
                             .threads = threads_,
                             .all_stopped = all_stopped_,
                             .asking_thread = asking_thread_,
                             .asking_thread_pointer = asking_thread_pointer_,
                             .asking_stack_pointer = asking_stack_pointer_,
                             .asking_state = &asking_state_};
    AddMemoryWithoutRoots(scene, &passed_over_, &Search::VisitRoot, this);
    passed_over_.Build();
    for (uint32_t i = 0; i < blocks_.count(); ++i) {
      if ((DetailOf(i).flags & kReached) != 0) pending_.as<uint32_t>()[pending_count_++] = i;
    }
    VisitRegisters();
    VisitKernel();
    VisitMemory();
    SpreadReached();
    result_.blocks = blocks_.count();
    FollowLeaks();
    AddUp();
    reader_.Close();
  }

  bool AllStopped() const {
    if (threads_.count == 0) return false;
    for (uint32_t i = 0; i < threads_.count; ++i) {
      const reach::StoppedThread& thread = threads_.threads[i];
      if (!thread.seen && thread.state != reach::StoppedThread::State::kGone) return false;
    }
    return true;
  }

  bool ReadBooks() {
    const box::Region& region = recorder.mapping.header().regions[box::kSamples];
    const auto* const samples = recorder.mapping.Records<box::Sample>(box::kSamples);
    // Only as far as levels of the table are in use.
    uint64_t unit = region.capacity / box::kSampleShares;
    uint64_t end = 0;
    for (uint32_t level = 0; level < recorder.mapping.header().sample_levels; ++level, unit *= 4) {
      end += unit;
    }
    for (uint64_t i = 0; i < end; ++i) {
      const uint64_t address = box::Load(samples[i].address, std::memory_order_acquire);
      if (address <= box::kSampleClaimed) continue;
      const box::Sample& sample = samples[i];
      const uint32_t id = blocks_.count();
      if (id >= room_ || !blocks_.Add(address, box::SizeOf(sample), id)) {
        result_.error = ENOMEM;
        return false;
      }
      uint32_t flags = box::IsIgnored(sample) ? uint32_t{kReached} : 0;
      if (parent_is_there_ && sample.born_tenths < recorder.generation) flags |= kInherited;
      details_.as<Detail>()[id] = {.stack = sample.stack, .flags = flags};
    }
    blocks_.Build();
    return true;
  }

  // Who forked this process will report what it leaked before.
  static bool ParentIsThere() {
    return recorder.generation > 0 && base::Syscall(SYS_getppid) == recorder.parent;
  }

  bool ReadMap() {
    bool room = true;
    const auto exclude = [&](uint64_t start, uint64_t bytes) {
      room = room && map_.Exclude(start, bytes);
    };
    exclude(blocks_.memory_start(), blocks_.memory_bytes());
    exclude(details_.start(), details_.bytes());
    exclude(pending_.start(), pending_.bytes());
    exclude(buffers_.start(), buffers_.bytes());
    exclude(sums_.start(), sums_.bytes());
    exclude(collector_.memory_start(), collector_.memory_bytes());
    // Twice, since its own list is only known after the first time: it holds addresses that are ends
    // of blocks.
    if (map_.Read() == 0) exclude(map_.memory_start(), map_.memory_bytes());
    if (!room || map_.Read() != 0 ||
        !passed_over_.Reserve(
            MostRangesWithoutRoots(blocks_.count(), map_.count(), threads_.count))) {
      result_.error = EIO;
      return false;
    }
    return true;
  }

  Detail& DetailOf(uint32_t number) const {
    return details_.as<Detail>()[blocks_.block(number).id];
  }

  // --- Words ---

  void Reach(uint64_t word) {
    const uint32_t number = blocks_.Find(word);
    if (number == BlockIndex::kNone) return;
    if (in_libcs_data_ && IsAllocatorsWord(number, word)) return;
    Detail& detail = DetailOf(number);
    if ((detail.flags & kReached) != 0) return;
    detail.flags |= kReached;
    pending_.as<uint32_t>()[pending_count_++] = number;
  }

  static void VisitRoot(void* self, uint64_t word) { static_cast<Search*>(self)->Reach(word); }

  // glibc's lists of free chunks, and the place of the last one, in its own data: addresses of heads
  // of chunks. Such a head lies just behind the block before it, of which it is taken for the end.
  bool IsAllocatorsWord(uint32_t number, uint64_t word) const {
    const uint64_t address = blocks_.block(number).address;
    const uint64_t bytes = ChunkWord(reinterpret_cast<const void*>(address)) & ~uint64_t{7};
    return (word & reach::kAddressMask) == address - 16 + bytes;
  }

  // Every word in [bytes, bytes + count), at any offset.
  template <typename Found>
  static void ForEachWord(const std::byte* bytes, size_t count, Found found) {
    size_t at = 0;
    uint64_t word = 0;
    if (count < sizeof(word)) return;
    for (; at + 2 * sizeof(word) <= count; at += sizeof(word)) {
      uint64_t following = 0;
      memcpy(&word, bytes + at, sizeof(word));
      memcpy(&following, bytes + at + sizeof(word), sizeof(following));
      if ((word | following) == 0) continue;
      found(word);
      for (int shift = 8; shift < 64; shift += 8) {
        found(word >> shift | following << (64 - shift));
      }
    }
    for (; at + sizeof(word) <= count; ++at) {
      memcpy(&word, bytes + at, sizeof(word));
      found(word);
    }
  }

  void ReachFromBytes(const void* bytes, size_t count) {
    ForEachWord(static_cast<const std::byte*>(bytes), count,
                [this](uint64_t word) { Reach(word); });
  }

  // --- Roots ---

  void VisitRegisters() {
    for (uint32_t i = 0; i < threads_.count; ++i) {
      const reach::StoppedThread& thread = threads_.threads[i];
      // Of the one that asked, the rest is ours, or dead.
      if (!thread.seen || thread.id == asking_thread_) continue;
      ReachFromBytes(thread.registers, thread.register_bytes);
    }
    for (size_t i = 0; i < frame_.register_count; ++i) Reach(frame_.registers[i]);
    Reach(asking_stack_pointer_);
    Reach(asking_thread_pointer_);
    Reach(alternate_stack_);
  }

  void VisitKernel() {
    const int process = OwnProcessId();
    reach::VisitEpollData(process, ThreadOfRecorder(), &Search::VisitRoot, this);
    reach::VisitTimers(process, &Search::VisitRoot, this);
    static_assert(kKernelBufferBytes <= kBufferBytes);
    VisitKernelContents(
        buffers_.as<std::byte>(),
        [](void* self, const void* bytes, size_t count) {
          static_cast<Search*>(self)->ReachFromBytes(bytes, count);
        },
        this);
  }

  void VisitMemory() {
    const MemoryRange* const libcs =
        next.is_glibc ? map_.Find(reinterpret_cast<uint64_t>(next.data_of_libc)) : nullptr;
    pages_.Open(buffers_.as<std::byte>() + kBufferBytes, true);
    for (uint64_t i = 0; i < map_.count(); ++i) {
      const MemoryRange& range = map_.range(i);
      // Memory that is shared and sealed, or mapped for reading, can refer as well.
      const bool readable_file = range.shared && range.kind == reach::RangeKind::kFile;
      if (!range.MayRefer() && !readable_file) continue;
      in_libcs_data_ = &range == libcs;
      map_.ForEachPart(range.start, range.limit, [&](uint64_t start, uint64_t limit) {
        passed_over_.ForEachOutside(
            start, limit, [&](uint64_t from, uint64_t to) { VisitPart(range, from, to); });
      });
    }
    in_libcs_data_ = false;
    pages_.Close();
  }

  void VisitPart(const MemoryRange& range, uint64_t from, uint64_t limit) {
    uint64_t run_start = 0;
    uint64_t run_limit = 0;
    for (; pages_.Next(range, from, limit, &run_start, &run_limit); from = run_limit) {
      ReachFromMemory(run_start, run_limit, !range.readable);
    }
  }

  // Pieces overlap by what a word at the end of one may need of the next.
  void ReachFromMemory(uint64_t start, uint64_t limit, bool is_protected) {
    constexpr uint64_t kOverlap = sizeof(uint64_t) - 1;
    auto* const buffer = buffers_.as<std::byte>();
    while (start < limit) {
      const uint64_t bytes = std::min<uint64_t>(limit - start, kBufferBytes);
      if (reader_.Read(start, buffer, bytes, is_protected)) ReachFromBytes(buffer, bytes);
      if (bytes == limit - start) break;
      start += bytes - kOverlap;
    }
  }

  // --- Blocks ---

  // What the block's owner may have stored to: glibc lets it use more than it asked for.
  uint64_t ContentBytes(const Block& block) {
    if (!next.is_glibc) return block.size;
    const uint64_t chunk = ChunkWord(reinterpret_cast<const void*>(block.address)) & ~uint64_t{7};
    const bool likely = chunk >= block.size + 8 && chunk <= block.size + 2 * kPage;
    return likely ? chunk - 8 : block.size;
  }

  // Calls found(word) for each word of the block.
  template <typename Found>
  void ForEachWordOf(const Block& block, Found found) {
    if (last_ == nullptr || !last_->Contains(block.address)) last_ = map_.Find(block.address);
    if (last_ == nullptr) return;
    const uint64_t bytes = ContentBytes(block);
    if (bytes < sizeof(uint64_t)) return;
    const uint64_t limit = block.address + bytes;
    const bool direct = all_stopped_ && last_->readable && !last_->shared &&
                        limit <= last_->limit && bytes <= kDirect;
    if (direct) {
      ForEachWord(reinterpret_cast<const std::byte*>(block.address), bytes, found);
      return;
    }
    // Large: what of it was never touched is not read; and it may be protected in parts.
    uint64_t at = block.address;
    while (at < limit) {
      const MemoryRange* const range = map_.Find(at);
      if (range == nullptr) break;
      const uint64_t end = std::min(limit, range->limit);
      uint64_t run_start = 0;
      uint64_t run_limit = 0;
      for (uint64_t from = at; pages_.Next(*range, from, end, &run_start, &run_limit);
           from = run_limit) {
        auto* const buffer = buffers_.as<std::byte>();
        for (uint64_t start = run_start; start < run_limit;) {
          const uint64_t piece = std::min<uint64_t>(run_limit - start, kBufferBytes);
          if (reader_.Read(start, buffer, piece, !range->readable)) {
            ForEachWord(buffer, piece, found);
          }
          if (piece == run_limit - start) break;
          start += piece - (sizeof(uint64_t) - 1);
        }
      }
      at = end;
    }
  }

  void SpreadReached() {
    pages_.Open(buffers_.as<std::byte>() + kBufferBytes, true);
    auto* const pending = pending_.as<uint32_t>();
    while (pending_count_ > 0) {
      const Block block = blocks_.block(pending[--pending_count_]);
      ForEachWordOf(block, [this](uint64_t word) { Reach(word); });
    }
  }

  // --- Leaks ---

  // A block is met when a head that was met before leads to it. Who leads to a head that was met
  // before, and was not led to by it, takes its place.
  void FollowLeaks() {
    auto* const pending = pending_.as<uint32_t>();
    for (uint32_t i = 0; i < blocks_.count(); ++i) {
      Detail& head = DetailOf(i);
      if ((head.flags & (kReached | kMet)) != 0) continue;
      head.flags |= kMet | kIsHead;
      pending[pending_count_++] = i;
      while (pending_count_ > 0) {
        const Block block = blocks_.block(pending[--pending_count_]);
        ForEachWordOf(block, [&](uint64_t word) {
          const uint32_t number = blocks_.Find(word);
          if (number == BlockIndex::kNone || number == i) return;
          Detail& detail = DetailOf(number);
          if ((detail.flags & kReached) != 0) return;
          detail.flags &= ~uint32_t{kIsHead};
          if ((detail.flags & kMet) != 0) return;
          detail.flags |= kMet;
          pending[pending_count_++] = number;
        });
      }
    }
    pages_.Close();
  }

  void AddUp() {
    auto* const sums = sums_.as<StackLeaks>();
    const uint64_t most = sums_.bytes() / sizeof(StackLeaks);
    for (uint32_t i = 0; i < blocks_.count(); ++i) {
      const Detail& detail = DetailOf(i);
      if ((detail.flags & kReached) != 0) {
        ++result_.reached;
        continue;
      }
      if ((detail.flags & kInherited) != 0) continue;
      const uint64_t size = blocks_.block(i).size;
      const bool direct = (detail.flags & kIsHead) != 0;
      const auto add = [&](StackLeaks* to) {
        (direct ? to->direct_objects : to->indirect_objects) += 1;
        (direct ? to->direct_bytes : to->indirect_bytes) += size;
      };
      add(&sums[detail.stack < most ? detail.stack : box::kOtherStack]);
      add(&result_.all);
    }
  }

  static constexpr uint64_t kDirect = 1 << 20;

  const ProgramFrame& frame_;
  LeakResult& result_;
  reach::Collector collector_;
  reach::StoppedThreads threads_ = {};
  BlockIndex blocks_;
  uint64_t room_ = 0;
  Mapped details_;
  Mapped pending_;  // numbers of blocks whose contents are still to be looked at
  uint64_t pending_count_ = 0;
  Mapped buffers_;
  reach::MemoryMap map_;
  reach::MemoryReader reader_;
  reach::PresentPages pages_;
  RangeSet passed_over_;
  const MemoryRange* last_ = nullptr;
  bool in_libcs_data_ = false;
  bool all_stopped_ = false;
  bool parent_is_there_ = false;
  bool done_ = false;
  int asking_thread_ = 0;
  uint64_t asking_thread_pointer_ = 0;
  uint64_t asking_stack_pointer_ = 0;
  uint64_t alternate_stack_ = 0;
  const ThreadState& asking_state_ = thread_state;
  Mapped sums_;
};

}  // namespace

void SearchLeaks(const ProgramFrame& frame, LeakResult* result) {
  *result = {};
  Search search(frame, result);
  search.Run();
}

}  // namespace heapflare::recorder
