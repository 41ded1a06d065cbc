#include "lib/recorder/exit_frame.h"

#define UNW_LOCAL_ONLY
#include <libunwind.h>
#include <stdlib.h>

#include "lib/recorder/modules.h"
#include "lib/recorder/stack_bounds.h"

namespace heapflare::recorder {
namespace {

#if defined(__x86_64__)
constexpr int kKept[] = {UNW_X86_64_RBX, UNW_X86_64_RBP, UNW_X86_64_R12,
                         UNW_X86_64_R13, UNW_X86_64_R14, UNW_X86_64_R15};
#elif defined(__aarch64__)
constexpr int kKept[] = {UNW_AARCH64_X19, UNW_AARCH64_X20, UNW_AARCH64_X21, UNW_AARCH64_X22,
                         UNW_AARCH64_X23, UNW_AARCH64_X24, UNW_AARCH64_X25, UNW_AARCH64_X26,
                         UNW_AARCH64_X27, UNW_AARCH64_X28, UNW_AARCH64_X29};
#endif

// Walks outward until `found(pc)`.
template <typename Found>
ProgramFrame FindFrame(Found found) {
  constexpr int kMostFrames = 64;
  ProgramFrame frame = {};
  unw_context_t context;
  unw_cursor_t cursor;
  FindStackBounds(reinterpret_cast<uint64_t>(__builtin_frame_address(0)));
  if (unw_getcontext(&context) != 0 || unw_init_local(&cursor, &context) != 0) return frame;
  for (int i = 0; i < kMostFrames && unw_step(&cursor) > 0; ++i) {
    unw_word_t pc = 0;
    unw_word_t sp = 0;
    if (unw_get_reg(&cursor, UNW_REG_IP, &pc) != 0 || unw_get_reg(&cursor, UNW_REG_SP, &sp) != 0) {
      return frame;
    }
    if (!found(pc)) continue;
    frame.stack_pointer = sp;
    for (const int number : kKept) {
      unw_word_t value = 0;
      if (unw_get_reg(&cursor, number, &value) == 0) {
        frame.registers[frame.register_count++] = value;
      }
    }
    return frame;
  }
  return frame;
}

}  // namespace

ProgramFrame FindCallerOfExit() {
  const uint32_t libc = FindModuleOf(reinterpret_cast<uint64_t>(&exit));
  bool in_libc = false;
  return FindFrame([libc, &in_libc](uint64_t pc) {
    // The call before the return address may be its function's last instruction.
    const bool is_libc = libc != 0 && FindModuleOf(pc - 1) == libc;
    if (in_libc && !is_libc) return true;
    in_libc = in_libc || is_libc;
    return false;
  });
}

ProgramFrame FindFrameAt(uint64_t return_address) {
  return FindFrame([return_address](uint64_t pc) { return pc == return_address; });
}

}  // namespace heapflare::recorder
