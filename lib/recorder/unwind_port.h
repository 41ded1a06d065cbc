// What the stack unwinder needs from the recorder, and what the recorder may rely on.
//
// The unwinder is libunwind 1.6.2, built by cmake/HeapflareDependencies.cmake and patched so that
// it can run inside malloc (cmake/patches/libunwind-1.6.2.patch). To unwind, include <libunwind.h>
// after `#define UNW_LOCAL_ONLY`:
//   int unw_backtrace(void** frames, int size)     cached; return addresses, innermost first
//   unw_getcontext, unw_init_local, unw_step, unw_get_reg, unw_is_signal_frame
// It makes no system call, takes no lock, allocates nothing and has no thread-local state: a call
// may be interrupted anywhere, also by a signal handler that unwinds, by fork or by the end of the
// thread. There is nothing to initialise, and nothing to lock around fork.
//
// Its only state is one table for the process: 64 Ki rows of 16 bytes in .bss, of which the pages
// in use cost memory, 1 MiB at most (unwind_rows.h).
//
// Callable from C, because the unwinder is C. Everything here is hidden from the dynamic symbol
// table.
#ifndef HEAPFLARE_LIB_RECORDER_UNWIND_PORT_H_
#define HEAPFLARE_LIB_RECORDER_UNWIND_PORT_H_

#include <link.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(hidden)

// Defined by the recorder. Calls `callback` for the module that maps `ip`, or for every module
// until the callback returns something else than 0, and returns what the last call returned, or 0.
// Replaces dl_iterate_phdr, whose lock another thread may hold while it allocates.
//
// Called when `ip` is in no row yet, from inside malloc and from signal handlers: no lock that the
// interrupted thread may hold, no allocation. The callback uses dlpi_addr, dlpi_phdr and
// dlpi_phnum, and returns at once. The unwinder reads the module's .eh_frame through them until the
// unwind ends, so the module must stay mapped until then. Include the vDSO: on aarch64 signal
// frames are found through it.
int heapflare_unwind_iterate(unsigned long ip, int (*callback)(struct dl_phdr_info*, size_t, void*),
                             void* data);

// Defined by the recorder. 1 if the 8 bytes at `address` lie in the stack that this thread runs on
// (or in another one that may be read, such as the stack below a signal handler on its own stack).
// Asked before every read that follows a stack or frame pointer. 0 ends the unwind at that frame:
// unw_backtrace returns what it has, unw_step an error. A recorder that wants to know whether a
// stack is complete notes that it answered 0.
//
// Called once or twice per frame, so its cost counts. The lowest address asked for is that of
// unw_backtrace's own return address, just below its caller's frame: a lower bound that the caller
// takes from __builtin_frame_address is too high.
int heapflare_unwind_readable(unsigned long address);

// Defined by the recorder, which adds one, with release order, after each change of what
// heapflare_unwind_iterate finds: modules that came, because until then their code was unwound by
// guesses, and modules that went, because others may be mapped in their place. Rows of other
// generations are not used again.
extern unsigned heapflare_unwind_generation;

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif  // HEAPFLARE_LIB_RECORDER_UNWIND_PORT_H_
