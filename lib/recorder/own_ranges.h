// Which memory of the process is the recorder's own and holds addresses of blocks, or what registers
// held: a search for references must not look there. Listed once, for all searches.
#pragma once

#include <cstdint>

namespace heapflare::recorder {

// Calls visit(context, start, bytes) for the box, the memory of the recorder's thread, and the memos
// of walks, as far as they are there. What a search has mapped for itself, it knows itself.
void VisitOwnRanges(void (*visit)(void* context, uint64_t start, uint64_t bytes), void* context);

}  // namespace heapflare::recorder
