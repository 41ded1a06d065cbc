// References that wait in the kernel: in pipes, sockets, files without a name (memfd) and eventfds
// that this process has open. What another process will read, or this one later.
//
// Nothing is taken out: a pipe is copied by tee(2), a socket's first bytes by MSG_PEEK. Of each the
// first 64 KiB are looked at. Raw system calls, no allocation.
#pragma once

#include <cstddef>

namespace heapflare::recorder {

inline constexpr size_t kKernelBufferBytes = 64 << 10;

// Called for each piece of what is there; pieces are not aligned to anything.
using VisitBytes = void (*)(void* context, const void* bytes, size_t count);

// Of the calling process's descriptors. `buffer` of kKernelBufferBytes.
void VisitKernelContents(void* buffer, VisitBytes visit, void* context);

}  // namespace heapflare::recorder
