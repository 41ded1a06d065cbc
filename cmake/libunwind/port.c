/* The local address space as heapflare wants it: no initialisation, every read checked. Replaces
   libunwind's Ginit.c and Gglobal.c of each architecture. */
#define UNW_LOCAL_ONLY
#include <libunwind.h>
#include <link.h>
#include <stdatomic.h>

#include "dwarf_i.h"
#include "libunwind_i.h"

#if defined __x86_64__
/* From DWARF column to register number. */
HIDDEN const uint8_t dwarf_to_unw_regnum_map[DWARF_NUM_PRESERVED_REGS] = {
    UNW_X86_64_RAX, UNW_X86_64_RDX, UNW_X86_64_RCX, UNW_X86_64_RBX, UNW_X86_64_RSI, UNW_X86_64_RDI,
    UNW_X86_64_RBP, UNW_X86_64_RSP, UNW_X86_64_R8,  UNW_X86_64_R9,  UNW_X86_64_R10, UNW_X86_64_R11,
    UNW_X86_64_R12, UNW_X86_64_R13, UNW_X86_64_R14, UNW_X86_64_R15, UNW_X86_64_RIP,
};
#define CONTEXT(arg) AS_ARG_GET_UC_PTR(arg)
#elif defined __aarch64__
HIDDEN void* tdep_uc_addr(unw_tdep_context_t* uc, int reg) {
  if (reg >= UNW_AARCH64_X0 && reg <= UNW_AARCH64_PSTATE) return &uc->uc_mcontext.regs[reg];
  /* Vector registers: unw_getcontext does not save them, and no return address is computed from
   * one. */
  return NULL;
}
#define CONTEXT(arg) (((const struct cursor*)(arg))->uc)
#else
#error "cmake/libunwind: no port for this architecture"
#endif

_Static_assert(sizeof(struct cursor) <= sizeof(unw_cursor_t),
               "the patch made the cursor too large");

static int access_mem(unw_addr_space_t as, unw_word_t address, unw_word_t* value, int write,
                      void* arg) {
  (void)as;
  if (write) {
    /* Only the saved registers are ever changed, by the start of a trace. */
    if (address - (unw_word_t)(uintptr_t)CONTEXT(arg) >
        sizeof(unw_tdep_context_t) - sizeof(unw_word_t))
      return -UNW_EBADFRAME;
    *(unw_word_t*)address = *value;
    return 0;
  }
  if (!heapflare_may_read(CONTEXT(arg), address)) return -UNW_EBADFRAME;
  *value = *(const unw_word_t*)address;
  return 0;
}

static struct unw_addr_space local_addr_space = {
    .acc = {.access_mem = access_mem},
    .caching_policy = UNW_CACHE_NONE,
};
unw_addr_space_t unw_local_addr_space = &local_addr_space;

HIDDEN unw_accessors_t* unw_get_accessors_int(unw_addr_space_t as) { return &as->acc; }

HIDDEN atomic_bool tdep_init_done = 1;

HIDDEN void tdep_init(void) {}

struct code_range {
  unw_word_t begin, end;
};

static int contains_code(struct dl_phdr_info* info, size_t size, void* data) {
  const struct code_range* range = data;
  (void)size;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)* phdr = &info->dlpi_phdr[i];
    unw_word_t begin = info->dlpi_addr + phdr->p_vaddr;
    if (phdr->p_type == PT_LOAD && (phdr->p_flags & (PF_R | PF_X)) == (PF_R | PF_X) &&
        range->begin >= begin && range->end <= begin + phdr->p_filesz)
      return 1;
  }
  return 0;
}

HIDDEN int heapflare_code_readable(unw_word_t ip, unsigned long size) {
  struct code_range range = {ip, ip + size};
  return heapflare_unwind_iterate(ip, contains_code, &range) > 0;
}

HIDDEN struct heapflare_row heapflare_rows[1 << HEAPFLARE_ROW_LOG_SETS][HEAPFLARE_ROW_WAYS]
    __attribute__((aligned(64)));

HIDDEN void heapflare_row_store(uint64_t pc, unsigned generation, uint64_t step) {
  /* Which row of a full set goes. Racy, and need not be better than arbitrary. */
  static unsigned victim;
  struct heapflare_row* set = heapflare_row_set(pc);
  int way;
  for (way = 0; way < HEAPFLARE_ROW_WAYS; ++way)
    if (__atomic_load_n(&set[way].step, __ATOMIC_RELAXED) == 0) break;
  if (way == HEAPFLARE_ROW_WAYS) {
    unsigned next = __atomic_load_n(&victim, __ATOMIC_RELAXED);
    __atomic_store_n(&victim, next + 1, __ATOMIC_RELAXED);
    way = next % HEAPFLARE_ROW_WAYS;
  }
  __atomic_store_n(&set[way].check, pc ^ heapflare_row_hash(step, generation), __ATOMIC_RELAXED);
  __atomic_store_n(&set[way].step, step, __ATOMIC_RELAXED);
}
