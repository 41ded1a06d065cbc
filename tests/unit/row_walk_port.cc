#include "tests/unit/row_walk_port.h"

#include <link.h>

#include "lib/recorder/own_frames.h"
#include "lib/recorder/unwind_port.h"

extern "C" void* __libc_stack_end;

unsigned heapflare_unwind_generation = 0;
constinit heapflare::recorder::OwnCode heapflare::recorder::own_code = {};  // there is none

uint64_t stack_low = 0;

uint64_t StackHigh() { return reinterpret_cast<uint64_t>(__libc_stack_end); }

int heapflare_unwind_iterate(unsigned long /*ip*/, int (*callback)(dl_phdr_info*, size_t, void*),
                             void* data) {
  return dl_iterate_phdr(callback, data);
}

int heapflare_unwind_readable(unsigned long address) {
  return address >= stack_low && address <= StackHigh() - 8;
}
