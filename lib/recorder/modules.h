// The module table: which ELF files are mapped where, kept in the box.
//
// Read from /proc/self/maps, never from the loader: its lock may be held by the thread that
// allocates, or by one that waits for it. The recorder's thread looks now and then and before every
// dump; a hook that meets a program counter of no known module looks at once if the loader knows one
// (a library was just loaded), else at most ten times a second. A module that is gone is marked unloaded and stays in the
// box, since stacks still refer to it; if the same file comes back to the same place, it is that
// module again.
//
// Libraries can change places faster than anybody looks. So one that was loaded after the start is
// recognised by its build id, which lies in memory, whenever a stack leads through it.
//
// Build ids and program headers are read from memory in a way that cannot fault (own_memory.h).
#pragma once

#include <link.h>

#include <cstddef>
#include <cstdint>

#include "lib/box/mapping.h"
#include "lib/box/stack_table.h"

namespace heapflare::recorder {

// Uses `mapping` for the table from now on and fills it; module 0 becomes the main program.
void AttachModules(box::Mapping* mapping);
// Before a forked child attaches its own box: forgets the parent's and any scan that was under way.
void DetachModules();

// In a forked child that keeps its parent's box: forgets any scan that was under way.
void KeepModulesInChild();

// Brings the table up to date, and gives locations of unknown modules theirs. Does nothing if
// another thread is at it.
void ScanModules();

// The module, plus one, that holds `pc`; 0: none is known. May scan, see above. Async-signal-safe.
// For hooks, like the next one.
uint32_t FindModuleOf(uint64_t pc);

// See box/stack_table.h. A module that is not there any more is marked unloaded.
box::Standing CheckLocation(uint32_t location, uint32_t module_plus_one);

// What dl_iterate_phdr would tell of the object that holds `ip`; 0 without a call if there is none.
int VisitObject(uint64_t ip, int (*callback)(dl_phdr_info*, size_t, void*), void* data);

// glibc's lock-free lookup, if there is one; see next_allocator.h.
void UseObjectLookup(void* function);

// The loader's list as it is at the start: what is on it now stays for good.
void RememberFirstObjects(void* list);

}  // namespace heapflare::recorder
