#include "lib/recorder/own_frames.h"

#include <sys/auxv.h>

// From the linker: of this library, or of the program that we are linked into. Weak, or ld would list
// some of them in the dynamic symbol table.
extern "C" {
extern const char __ehdr_start[] __attribute__((weak, visibility("hidden")));
extern const char _end[] __attribute__((weak, visibility("hidden")));
extern const char __start_heapflare_calling[] __attribute__((weak, visibility("hidden")));
extern const char __stop_heapflare_calling[] __attribute__((weak, visibility("hidden")));
}

namespace heapflare::recorder {

constinit OwnCode own_code = {};

void FindOwnCode() {
  const auto set = [](const char* start, const char* stop) {
    own_code = {.start = reinterpret_cast<uint64_t>(start),
                .bytes = static_cast<uint64_t>(stop - start)};
  };
  const uint64_t entry = getauxval(AT_ENTRY);
  const auto first = reinterpret_cast<uint64_t>(__ehdr_start);
  const bool in_program =
      first == 0 || (entry >= first && entry < reinterpret_cast<uint64_t>(_end));
  if (in_program) {
    set(__start_heapflare_calling, __stop_heapflare_calling);
  } else {
    set(__ehdr_start, _end);
  }
}

}  // namespace heapflare::recorder
