/* What the patched libunwind uses instead of its own memory checks, caches and module lookup.
   The contract with the recorder is in lib/recorder/unwind_port.h. */
#ifndef HEAPFLARE_CMAKE_LIBUNWIND_PORT_H_
#define HEAPFLARE_CMAKE_LIBUNWIND_PORT_H_

#include <stdint.h>

#include "lib/recorder/unwind_port.h"

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

/* The table of rows: how to step out of a frame, by program counter, for all threads.

   Sets of four rows, one cache line each. A row is two words which are stored and loaded
   separately, without a lock: the packed step, and the program counter xored with a hash of the
   step. A row that was half overwritten hashes to another program counter than the one looked for,
   so it is a miss and is computed again. The module generation is xored in too, so a new generation
   starts with an empty table without touching it.

   A thread that hits writes nothing, so threads do not slow each other down. */
#define HEAPFLARE_ROW_WAYS 4
#define HEAPFLARE_ROW_LOG_SETS 14

struct heapflare_row {
  uint64_t check;
  uint64_t step;
};

extern struct heapflare_row heapflare_rows[1 << HEAPFLARE_ROW_LOG_SETS][HEAPFLARE_ROW_WAYS];

static inline struct heapflare_row* heapflare_row_set(uint64_t pc) {
  return heapflare_rows[(pc * 0x9e3779b97f4a7c15ULL) >> (64 - HEAPFLARE_ROW_LOG_SETS)];
}

static inline uint64_t heapflare_row_hash(uint64_t step, unsigned generation) {
  uint64_t h = (step ^ ((uint64_t)generation << 32)) * 0xd6e8feb86659fd93ULL;
  return h ^ h >> 32; /* brings the well mixed half down to where program counters differ */
}

/* The step for PC in *STEP, or 0 if there is none. */
static inline int heapflare_row_find(uint64_t pc, unsigned generation, uint64_t* step) {
  struct heapflare_row* set = heapflare_row_set(pc);
  for (int way = 0; way < HEAPFLARE_ROW_WAYS; ++way) {
    uint64_t s = __atomic_load_n(&set[way].step, __ATOMIC_RELAXED);
    uint64_t check = __atomic_load_n(&set[way].check, __ATOMIC_RELAXED);
    if ((check ^ heapflare_row_hash(s, generation)) == pc) {
      *step = s;
      return 1;
    }
  }
  return 0;
}

/* STEP is never 0, so that a row of zeros is free. */
extern void heapflare_row_store(uint64_t pc, unsigned generation, uint64_t step);

#endif /* HEAPFLARE_CMAKE_LIBUNWIND_PORT_H_ */
