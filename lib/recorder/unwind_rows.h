/* The table of rows: how to step out of a frame, by program counter, for all threads. What the
   patched libunwind fills and our own walk (unwind.cc) reads.

   Sets of four rows, one cache line each. A row is two words which are stored and loaded
   separately, without a lock: the packed step, and the program counter xored with a hash of the
   step. A row that was half overwritten hashes to another program counter than the one looked for,
   so it is a miss and is computed again. The module generation is xored in too, so a new generation
   starts with an empty table without touching it.

   A thread that hits writes nothing, so threads do not slow each other down. Readable as C, since
   libunwind is C. */
#ifndef HEAPFLARE_LIB_RECORDER_UNWIND_ROWS_H_
#define HEAPFLARE_LIB_RECORDER_UNWIND_ROWS_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(hidden)

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

#if defined __x86_64__
/* Works out the row of the frame at PC, whose registers are given, by one step of libunwind, and
   stores it. PC is the address to look up: the return address less USE_PREV_INSTR, which is 0 below
   a signal frame and 1 elsewhere. 0: there is none to be had; that is not remembered if memory could
   not be read. Needs 4 KiB of stack. */
int heapflare_unwind_row(unsigned long pc, unsigned long cfa, unsigned long fp, unsigned long sp,
                         int use_prev_instr, unsigned generation, uint64_t* step);
#endif

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif /* HEAPFLARE_LIB_RECORDER_UNWIND_ROWS_H_ */
