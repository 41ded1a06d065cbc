// A program that replaces operator new itself, on top of malloc, with a header in front of each
// block, so that a block which did not come from it is noticed. Built twice: replacing every form
// (CONFORMANCE_EVERY_FORM), and replacing only new and delete, of which the C++ runtime makes the
// other forms.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include "tests/conformance/held.h"

namespace {

using conformance::Hold;

struct Header {
  uint64_t magic;
  uint64_t size;
};
constexpr uint64_t kMagic = 0x6f776e206e657721;

long made = 0;
long destroyed = 0;
long foreign = 0;

[[gnu::noinline]] bool IsOwn(void* block) {
  return (static_cast<Header*>(block) - 1)->magic == kMagic;
}

[[gnu::noinline]] void* Make(size_t size) {
  auto* const header = static_cast<Header*>(malloc(sizeof(Header) + size));
  if (header == nullptr) throw std::bad_alloc();
  *header = {.magic = kMagic, .size = size};
  ++made;
  return header + 1;
}

// Not inlined: the compiler believes that a block of operator new begins where it points.
[[gnu::noinline]] void Destroy(void* block) {
  if (block == nullptr) return;
  if (!IsOwn(block)) {
    // Under its own allocator it would be a crash; here it is a line.
    ++foreign;
    return;
  }
  ++destroyed;
  Header* const header = static_cast<Header*>(block) - 1;
  header->magic = 0;
  free(header);
}

}  // namespace

void* operator new(size_t size) { return Make(size); }
void operator delete(void* block) noexcept { Destroy(block); }
#ifdef CONFORMANCE_EVERY_FORM
void* operator new[](size_t size) { return Make(size); }
void* operator new(size_t size, const std::nothrow_t&) noexcept { return Make(size); }
void* operator new[](size_t size, const std::nothrow_t&) noexcept { return Make(size); }
void operator delete[](void* block) noexcept { Destroy(block); }
void operator delete[](void* block, size_t) noexcept { Destroy(block); }
void operator delete(void* block, const std::nothrow_t&) noexcept { Destroy(block); }
void operator delete[](void* block, const std::nothrow_t&) noexcept { Destroy(block); }
#endif
// GCC warns of a replaced delete without its sized form, and libstdc++'s would do.
void operator delete(void* block, size_t) noexcept { Destroy(block); }

namespace {

// The header is part of what is allocated.
constexpr size_t kOwn = 1000 - sizeof(Header);

CONFORMANCE_HOLDER(HoldNew, operator new(kOwn))
CONFORMANCE_HOLDER(HoldNewArray, operator new[](kOwn))
CONFORMANCE_HOLDER(HoldNewNothrow, operator new(kOwn, std::nothrow))
CONFORMANCE_HOLDER(HoldNewArrayNothrow, operator new[](kOwn, std::nothrow))
CONFORMANCE_HOLDER(HoldNewAligned, operator new (1024, std::align_val_t{128}))
CONFORMANCE_HOLDER(HoldMalloc, malloc(1001))

// Like conformance::Hold, for blocks that have a header if they are ours.
void HoldOwn(const char* name, void* (*hold)()) {
  size_t bytes = 0;
  for (int i = 0; i < conformance::kHeldBlocks; ++i) {
    void* const block = memset(hold(), 1, kOwn);
    bytes += kOwn;
    if (IsOwn(block)) bytes += sizeof(Header);
  }
  std::printf("held %s %d %zu\n", name, conformance::kHeldBlocks, bytes);
}

[[gnu::noinline]] void FreeEverything() {
  for (int i = 0; i < 100; ++i) {
    operator delete(operator new(static_cast<size_t>(i)));
    operator delete[](operator new[](static_cast<size_t>(i)));
    operator delete(operator new(static_cast<size_t>(i), std::nothrow), std::nothrow);
    operator delete[](operator new[](static_cast<size_t>(i), std::nothrow), std::nothrow);
    // As people write it.
    delete new (std::nothrow) std::vector<std::string>(3, std::string(100, 'x'));
    delete[] new std::string[4];
    const std::align_val_t aligned{64};
    operator delete(operator new(static_cast<size_t>(i), aligned), aligned);
  }
  if (foreign == 0) std::printf("freed FreeEverything\n");
}

}  // namespace

int main() {
  // Its buffer would be one of the blocks that stay.
  setvbuf(stdout, nullptr, _IONBF, 0);
  const long before = made - destroyed;
  FreeEverything();
  std::printf("balance %ld foreign %ld\n", made - destroyed - before, foreign);
  HoldOwn("HoldNew", HoldNew);
  HoldOwn("HoldNewArray", HoldNewArray);
  HoldOwn("HoldNewNothrow", HoldNewNothrow);
  HoldOwn("HoldNewArrayNothrow", HoldNewArrayNothrow);
  Hold("HoldNewAligned", 1024, HoldNewAligned);
  Hold("HoldMalloc", 1001, HoldMalloc);
  std::printf("made %ld\n", made);
  return 0;
}
