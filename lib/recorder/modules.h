// The module table: which ELF files are mapped where, kept in the box.
//
// Read from /proc/self/maps, never from the loader: its lock may be held by the thread that
// allocates, or by one that waits for it. The recorder's thread looks now and then and before every
// dump; a hook that meets a program counter of no known module looks at once (a library was just
// loaded), at most ten times a second. A module that is gone is marked unloaded and stays in the
// box, since stacks still refer to it.
//
// Build ids and program headers are read from memory in a way that cannot fault (own_memory.h).
#pragma once

#include <link.h>

#include <cstddef>
#include <cstdint>

#include "lib/box/mapping.h"

namespace heapflare::recorder {

// Uses `mapping` for the table from now on and fills it; module 0 becomes the main program.
void AttachModules(box::Mapping* mapping);
// Before a forked child attaches its own box: forgets the parent's and any scan that was under way.
void DetachModules();

// Brings the table up to date, and gives locations of unknown modules theirs. Does nothing if
// another thread is at it.
void ScanModules();

// The module, plus one, that holds `pc`; 0: none is known. May scan, see above. Async-signal-safe.
uint32_t FindModuleOf(uint64_t pc);

// What dl_iterate_phdr would tell of the object that holds `ip`; 0 without a call if there is none.
int VisitObject(uint64_t ip, int (*callback)(dl_phdr_info*, size_t, void*), void* data);

// glibc's lock-free lookup, if there is one; see next_allocator.h.
void UseObjectLookup(void* function);

}  // namespace heapflare::recorder
