#include "lib/recorder/free_filter.h"

#include <sys/mman.h>

#include "lib/base/syscall.h"

namespace heapflare::recorder {

constinit FreeFilter free_filter = {};

void FreeFilter::Prepare() {
  base::Syscall(SYS_madvise, base::Arg(slots_), sizeof(slots_), MADV_NOHUGEPAGE);
}

void FreeFilter::Clear() {
  // Private anonymous pages (.bss) read as zero afterwards.
  base::Syscall(SYS_madvise, base::Arg(slots_), sizeof(slots_), MADV_DONTNEED);
}

}  // namespace heapflare::recorder
