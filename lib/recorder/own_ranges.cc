#include "lib/recorder/own_ranges.h"

#include <initializer_list>

#include "lib/recorder/recorder.h"
#include "lib/recorder/thread.h"
#include "lib/recorder/walk_memo_pool.h"

namespace heapflare::recorder {

void VisitOwnRanges(void (*visit)(void* context, uint64_t start, uint64_t bytes), void* context) {
  visit(context, reinterpret_cast<uint64_t>(recorder.mapping.base()), recorder.mapping.bytes());
  uint64_t start = 0;
  uint64_t bytes = 0;
  for (const auto memory_of : {MemoryOfThread, MemoryOfMemos}) {
    memory_of(&start, &bytes);
    if (bytes > 0) visit(context, start, bytes);
  }
}

}  // namespace heapflare::recorder
