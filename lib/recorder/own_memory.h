// Looks at this process's own memory without ever faulting, whatever other threads unmap meanwhile.
#pragma once

#include <cstddef>
#include <cstdint>

namespace heapflare::recorder {

// Copies `bytes` from `address`. False if not all of it is readable, or the kernel forbids to ask.
bool ReadOwnMemory(uint64_t address, void* to, size_t bytes);

// How many of the `count` pages from `page` on (a page's address) can be read, up to the first that
// cannot.
size_t ReadablePages(uint64_t page, size_t count);

}  // namespace heapflare::recorder
