/* What the patched libunwind uses instead of its own memory checks, caches and module lookup.
   The contract with the recorder is in lib/recorder/unwind_port.h. */
#ifndef HEAPFLARE_CMAKE_LIBUNWIND_PORT_H_
#define HEAPFLARE_CMAKE_LIBUNWIND_PORT_H_

#include <stdint.h>

#include "lib/recorder/unwind_port.h"
#include "lib/recorder/unwind_rows.h"

/* 1 if the 8 bytes at ADDRESS may be read by an unwind which started from the registers saved in
 * UC. */
static inline int heapflare_may_read(const unw_tdep_context_t* uc, unw_word_t address) {
  return address - (unw_word_t)(uintptr_t)uc <= sizeof(*uc) - sizeof(unw_word_t) ||
         heapflare_unwind_readable(address);
}

/* 1 if the SIZE bytes at IP are code of a known module. Nothing else may be read as an instruction:
   a program counter that was guessed can point anywhere. */
extern int heapflare_code_readable(unw_word_t ip, unsigned long size);

/* Return addresses are signed where programs use pointer authentication; the signature is no part
 * of the address. */
static inline unw_word_t heapflare_strip(unw_word_t ip) {
#if defined __aarch64__
  register unw_word_t lr __asm__("x30") = ip;
  __asm__("hint #7" : "+r"(lr)); /* xpaclri, a no-op on processors without it */
  return lr;
#else
  return ip;
#endif
}

#endif /* HEAPFLARE_CMAKE_LIBUNWIND_PORT_H_ */
