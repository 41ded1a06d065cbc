#include "lib/recorder/leak_memory.h"

#include <algorithm>
#include <new>

#include "lib/recorder/bootstrap_arena.h"
#include "lib/recorder/memory_window.h"
#include "lib/recorder/next_allocator.h"
#include "lib/recorder/own_frames.h"
#include "lib/recorder/own_ranges.h"
#include "lib/recorder/recorder.h"
#include "lib/recorder/stale_contents.h"
#include "lib/recorder/thread_state.h"

namespace heapflare::recorder {
namespace {

using reach::Block;
using reach::MemoryRange;
using reach::RangeKind;

constexpr uint64_t kPage = 4096;
constexpr uint64_t kRedZone = 128;
// glibc: of a heap of an arena other than the first.
constexpr uint64_t kArenaHeapBytes = uint64_t{64} << 20;
// At least as large as glibc's struct pthread.
constexpr uint64_t kControlBlockBytes = 0xc00;

constinit uint64_t first_thread_pointer = 0;

uint64_t PageDown(uint64_t address) { return address / kPage * kPage; }
uint64_t PageUp(uint64_t address) { return PageDown(address + kPage - 1); }

class Finder {
 public:
  Finder(const LeakScene& scene, RangeSet* out, VisitWord visit, void* context)
      : scene_(scene), out_(out), visit_(visit), context_(context), window_(scene.reader) {}

  void Run() {
    AddOwn();
    if (next.is_glibc) {
      AddGlibcHeaps();
      AddMappedBlocks();
    } else {
      AddPagesOfBlocks();
    }
    AddStacks();
  }

 private:
  // The number of the first block at or above the address.
  uint32_t FirstBlockFrom(uint64_t address) const {
    uint32_t low = 0;
    for (uint32_t left = scene_.blocks->count(); left > 0;) {
      const uint32_t half = left / 2;
      if (scene_.blocks->block(low + half).address < address) {
        low += half + 1;
        left -= half + 1;
      } else {
        left = half;
      }
    }
    return low;
  }

  void AddOwn() {
    VisitOwnRanges(
        [](void* self, uint64_t start, uint64_t bytes) {
          static_cast<Finder*>(self)->out_->Add(start, start + bytes);
        },
        this);
    // Of the library; linked into a program we keep no addresses of blocks in its data. Blocks of the
    // arena are the loader's.
    const uint64_t arena = reinterpret_cast<uint64_t>(ArenaStart());
    const uint64_t end = own_code.start + own_code.bytes;
    if (arena >= own_code.start && arena < end) {
      out_->Add(own_code.start, arena);
      out_->Add(arena + ArenaBytes(), PageUp(end));
    }
  }

  // --- The allocator's memory ---

  void AddGlibcHeaps() {
    for (uint64_t i = 0; i < scene_.map->count(); ++i) {
      const MemoryRange& range = scene_.map->range(i);
      if (range.shared) continue;
      if (range.kind == RangeKind::kHeap) {
        WalkHeap(range.start, range.limit, range.limit);
      } else if (range.kind == RangeKind::kAnonymous && range.writable &&
                 range.start % kArenaHeapBytes == 0) {
        AddArenaHeap(range);
      }
    }
  }

  // struct heap_info: arena, previous heap, size in use, size made accessible.
  void AddArenaHeap(const MemoryRange& range) {
    const uint64_t arena = window_.Word(range.start);
    const uint64_t bytes = window_.Word(range.start + 16);
    const bool like_one = arena % kArenaHeapBytes != 0 && arena % kArenaHeapBytes < 0x200 &&
                          bytes % kPage == 0 && bytes > 0 && bytes <= kArenaHeapBytes &&
                          bytes <= range.bytes();
    if (!like_one) return;
    const uint64_t limit = range.start + bytes;
    // Up to the first chunk that we know lie the arena's own tables.
    const uint32_t first = FirstBlockFrom(range.start);
    const uint64_t begin =
        first < scene_.blocks->count() && scene_.blocks->block(first).address < limit
            ? scene_.blocks->block(first).address - 16
            : limit;
    out_->Add(range.start, begin);
    // What glibc gave back, or never used, holds nothing of the program's either.
    WalkHeap(begin, limit, limit);
  }

  // Passes over all but what nobody knows.
  void WalkHeap(uint64_t at, uint64_t limit, uint64_t end) {
    uint32_t block = FirstBlockFrom(at);
    const auto next_known = [&] {
      return block < scene_.blocks->count() && scene_.blocks->block(block).address < limit
                 ? scene_.blocks->block(block).address - 16
                 : end;
    };
    while (at + 16 <= limit) {
      while (next_known() < at) ++block;
      const uint64_t known = next_known();
      const uint64_t word = window_.Word(at + 8);
      const uint64_t bytes = word & ~uint64_t{7};
      const uint64_t after = at + bytes;
      const bool believable = bytes >= 16 && bytes % 16 == 0 && bytes <= limit - at &&
                              (at == known || after <= known) && (word & kChunkMapped) == 0;
      if (!believable) {
        // The program's own, or a block with a damaged head: to where we know more.
        if (at == known) {
          const Block& damaged = scene_.blocks->block(block);
          const uint64_t rest = std::min(limit, (damaged.address + damaged.size + 15) / 16 * 16);
          out_->Add(at, rest);
          at = std::max(rest, at + 16);
          ++block;
        } else {
          at = known;
        }
        continue;
      }
      if (at == known || !IsUnknown(at, bytes, limit)) out_->Add(at, after);
      at = after;
    }
  }

  bool IsUnknown(uint64_t chunk, uint64_t bytes, uint64_t limit) {
    const uint64_t after = chunk + bytes;
    // The last, what is not used yet; and marks of two words at the end of a part.
    if (bytes <= 16 || after + 16 > limit) return false;
    if ((window_.Word(after + 8) & kChunkInUse) == 0) return false;
    const uint64_t block = chunk + 16;
    return window_.Word(block + kFreedMarkAt) != FreedMark(block);
  }

  // All of them that are not in a heap: blocks that are mapped by themselves, to the page.
  void AddMappedBlocks() {
    for (uint32_t i = 0; i < scene_.blocks->count(); ++i) {
      const Block& block = scene_.blocks->block(i);
      // The usual ones are in there already, and are not worth a look.
      const MemoryRange* const range = RangeOf(block.address);
      if (range != nullptr && range->kind == RangeKind::kHeap) continue;
      const uint64_t word = window_.Word(block.address - 8);
      if ((word & kChunkOfArena) != 0) continue;
      const uint64_t chunk = block.address - 16;
      if ((word & kChunkMapped) != 0) {
        const uint64_t start = chunk - window_.Word(chunk);
        out_->Add(PageDown(start), PageUp(chunk + (word & ~uint64_t{7})));
      } else {
        // The first arena where it could not extend the program break.
        out_->Add(chunk, chunk + (word & ~uint64_t{7}));
      }
    }
  }

  const MemoryRange* RangeOf(uint64_t address) {
    if (last_ == nullptr || !last_->Contains(address)) last_ = scene_.map->Find(address);
    return last_;
  }

  void AddPagesOfBlocks() {
    for (uint32_t i = 0; i < scene_.blocks->count(); ++i) {
      const Block& block = scene_.blocks->block(i);
      out_->Add(PageDown(block.address), PageUp(block.address + std::max<uint64_t>(block.size, 1)));
    }
  }

  // --- Stacks ---

  void AddStacks() {
    // What each thread keeps for us: bounds of stacks, which can be blocks.
    for (uint32_t i = 0; i < scene_.threads.count; ++i) {
      const reach::StoppedThread& thread = scene_.threads.threads[i];
      if (thread.seen && thread.thread_pointer != 0) AddThreadState(thread.thread_pointer);
    }
    AddThreadState(scene_.asking_thread_pointer);
    if (const MemoryRange* const range = scene_.map->Find(scene_.asking_stack_pointer);
        range != nullptr && range->kind == RangeKind::kStack) {
      out_->Add(range->start, scene_.asking_stack_pointer);
    }
    for (uint32_t i = 0; i < scene_.threads.count; ++i) {
      const reach::StoppedThread& thread = scene_.threads.threads[i];
      if (!thread.seen || thread.id == scene_.asking_thread) continue;
      const MemoryRange* const range = scene_.map->Find(thread.stack_pointer);
      if (range != nullptr && range->kind == RangeKind::kStack) {
        out_->Add(range->start, thread.stack_pointer - kRedZone);
      }
    }
    for (uint64_t i = 0; i < scene_.map->count(); ++i) {
      const MemoryRange& range = scene_.map->range(i);
      if (range.kind != RangeKind::kAnonymous || range.shared || !range.writable) continue;
      const MemoryRange* const guard = scene_.map->Below(range);
      if (guard != nullptr && !guard->readable && !guard->writable && !guard->executable) {
        AddStacksOfGlibc(range, *guard);
      }
    }
  }

  void AddThreadState(uint64_t thread_pointer) {
    const auto here = reinterpret_cast<uint64_t>(scene_.asking_state);
    const uint64_t state = thread_pointer + (here - scene_.asking_thread_pointer);
    out_->Add(state, state + sizeof(ThreadState));
  }

  // glibc maps a stack with its guard, and puts the thread's control block at its top: two of whose
  // words are its own address, and two others where the stack begins and how large it is.
  void AddStacksOfGlibc(const MemoryRange& range, const MemoryRange& guard) {
    constexpr uint64_t kStep = 64;
    reach::PresentPages& pages = pages_;
    pages.Open(page_buffer_, true);
    uint64_t run_start = 0;
    uint64_t run_limit = 0;
    for (uint64_t from = range.start; pages.Next(range, from, range.limit, &run_start, &run_limit);
         from = run_limit) {
      for (uint64_t at = (run_start + kStep - 1) / kStep * kStep; at + 24 <= run_limit;
           at += kStep) {
        if (window_.Word(at) != at || window_.Word(at + 16) != at) continue;
        uint64_t top = 0;
        if (IsControlBlock(range, guard, at, &top)) {
          AddStack(range, at, top);
          pages.Close();
          return;
        }
      }
    }
    pages.Close();
  }

  bool IsControlBlock(const MemoryRange& range, const MemoryRange& guard, uint64_t at,
                      uint64_t* top) {
    if (at == first_thread_pointer) return false;
    for (uint64_t word = at + 24; word + 16 <= at + kControlBlockBytes && word + 16 <= range.limit;
         word += 8) {
      const uint64_t start = window_.Word(word);
      const uint64_t bytes = window_.Word(word + 8);
      if (start % kPage != 0 || bytes % kPage != 0 || !guard.Contains(start)) continue;
      if (bytes > at - start && bytes <= range.limit - start) {
        *top = start + bytes;
        return true;
      }
    }
    return false;
  }

  void AddStack(const MemoryRange& range, uint64_t control_block, uint64_t top) {
    if (control_block == scene_.asking_thread_pointer) {
      const uint64_t sp = scene_.asking_stack_pointer;
      if (sp > range.start && sp < control_block) out_->Add(range.start, sp);
      return;
    }
    for (uint32_t i = 0; i < scene_.threads.count; ++i) {
      const reach::StoppedThread& thread = scene_.threads.threads[i];
      if (!thread.seen || thread.thread_pointer != control_block) continue;
      const uint64_t sp = thread.stack_pointer;
      if (sp > range.start + kRedZone && sp < control_block) {
        out_->Add(range.start, sp - kRedZone);
      }
      return;
    }
    // Nobody's: it is dead, unless somebody was not seen. In a forked child the stacks of its parent's
    // threads look the same, and what these refer to is not the child's leak.
    if (!scene_.all_stopped || recorder.generation > 0) return;
    visit_(context_, window_.Word(control_block + 8));
    out_->Add(range.start, top);
  }

  const LeakScene& scene_;
  RangeSet* out_;
  VisitWord visit_;
  void* context_;
  MemoryWindow window_;
  const MemoryRange* last_ = nullptr;
  reach::PresentPages pages_;
  alignas(8) char page_buffer_[reach::PresentPages::kBufferBytes];
};

// Too large for a stack; used by one check at a time.
alignas(Finder) constinit std::byte finder_memory[sizeof(Finder)];

}  // namespace

void AddMemoryWithoutRoots(const LeakScene& scene, RangeSet* passed_over, VisitWord visit,
                           void* context) {
  auto* const finder = ::new (finder_memory) Finder(scene, passed_over, visit, context);
  finder->Run();
}

uint64_t MostRangesWithoutRoots(uint64_t blocks, uint64_t mappings, uint64_t threads) {
  // Before and after each block, at worst.
  return 2 * blocks + 2 * mappings + 2 * threads + 64;
}

void RememberFirstThreadPointer() {
  first_thread_pointer = reinterpret_cast<uint64_t>(__builtin_thread_pointer());
}

}  // namespace heapflare::recorder
