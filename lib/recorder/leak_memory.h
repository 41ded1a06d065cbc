// Which memory is no root of a leak check: not mapped by the program for itself, or dead.
//
// All other memory that is mapped is a root: whoever can reach it can reach what it points to. Passed
// over are
//   - the allocator's memory. What a live block holds counts once the block is reached, what a freed
//     one holds never. glibc's heaps are walked chunk by chunk. A chunk in use that is neither one of
//     our blocks nor marked as freed (stale_contents.h) was allocated behind our back, and what does
//     not look like a heap at all is the program's own, from sbrk: both are roots. Blocks that glibc
//     mapped by themselves are passed over to the page. Of other allocators, the pages that hold
//     blocks.
//   - stacks below their threads' stack pointers; and all of a stack that glibc keeps for the next
//     thread after its own has ended, but for its DTV, the table of a thread's TLS blocks, which goes
//     to that next thread.
//   - our own memory, and what each thread keeps for us.
//
// Run while all threads stand still. Raw system calls; no allocation.
#pragma once

#include <cstdint>

#include "lib/reach/block_index.h"
#include "lib/reach/memory_map.h"
#include "lib/reach/memory_reader.h"
#include "lib/reach/stopped_threads.h"
#include "lib/recorder/range_set.h"
#include "lib/recorder/thread_state.h"

namespace heapflare::recorder {

struct LeakScene {
  const reach::MemoryMap* map;
  const reach::BlockIndex* blocks;
  reach::MemoryReader* reader;
  // The threads that stand still; none if they could not be stopped.
  reach::StoppedThreads threads;
  // Every thread stands still: whoever is not among them is dead.
  bool all_stopped;
  // The thread that asked for the check, and where its live stack begins (0: not known).
  int asking_thread;
  uint64_t asking_thread_pointer;
  uint64_t asking_stack_pointer;
  // What it keeps for us; other threads have theirs at the same distance from their thread pointer.
  const ThreadState* asking_state;
};

// Called for words outside of memory that may refer to blocks.
using VisitWord = void (*)(void* context, uint64_t word);

// Adds to `passed_over`, which has room; `visit` gets the DTVs.
void AddMemoryWithoutRoots(const LeakScene& scene, RangeSet* passed_over, VisitWord visit,
                           void* context);

// How many ranges that may add for so many blocks, mappings and threads.
uint64_t MostRangesWithoutRoots(uint64_t blocks, uint64_t mappings, uint64_t threads);

// The first thread's, whose control block is on no stack.
void RememberFirstThreadPointer();

}  // namespace heapflare::recorder
