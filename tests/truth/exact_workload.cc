// Threads that allocate, change and free in every way there is, and what is true of it at the end.
//
//   exact_workload PROFILE OPERATIONS THREADS SEED
//
// Blocks lie in one table that all threads pick from at random, so that most are freed by another
// thread than the one that allocated them. Each way to allocate is a function of its own, whose
// name begins with workload_. Writes a profile to PROFILE and one line per function: blocks and
// bytes that it allocated, and those of them that are live. A realloc frees one block and allocates
// another.
#include <malloc.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <new>
#include <random>
#include <thread>

#include "heapflare/heapflare.h"

namespace {

constexpr size_t kSlots = 1 << 14;
constexpr size_t kAlignment = 64;
constexpr int kMostThreads = 64;

// What compilers must take for used.
inline void* Opaque(void* block) {
  asm volatile("" : "+r"(block));
  return block;
}

}  // namespace

#define WORKLOAD(name, expression) \
  extern "C" [[gnu::noinline]] void* workload_##name(size_t size) { return Opaque(expression); }
WORKLOAD(malloc, malloc(size))
WORKLOAD(calloc, calloc(size / 8, 8))
WORKLOAD(memalign, memalign(kAlignment, size))
WORKLOAD(aligned_alloc, aligned_alloc(kAlignment, size))
WORKLOAD(valloc, valloc(size))
WORKLOAD(reallocarray, reallocarray(nullptr, size / 4, 4))
WORKLOAD(realloc_of_nothing, realloc(nullptr, size))
WORKLOAD(new, operator new(size))
WORKLOAD(new_array, operator new[](size))
WORKLOAD(new_nothrow, operator new(size, std::nothrow))
WORKLOAD(new_aligned, operator new (size, std::align_val_t{kAlignment}))
WORKLOAD(new_array_aligned, operator new[](size, std::align_val_t{kAlignment}))

extern "C" [[gnu::noinline]] void* workload_posix_memalign(size_t size) {
  void* block = nullptr;
  return posix_memalign(&block, kAlignment, size) == 0 ? Opaque(block) : nullptr;
}

// In the page whose number has the same low bits as that of the null pointer: the recorder must
// look closer when the null pointer is freed.
extern "C" [[gnu::noinline]] void* workload_like_null(size_t size) {
  void* block = nullptr;
  return posix_memalign(&block, 1 << 30, size) == 0 ? Opaque(block) : nullptr;
}

// Through libc, which calls malloc.
extern "C" [[gnu::noinline]] void* workload_strdup(size_t size) {
  char text[4096];
  const size_t length = size % sizeof(text);
  memset(text, 'x', length);
  text[length] = 0;
  return Opaque(strdup(text));
}

extern "C" [[gnu::noinline]] void* workload_realloc(void* old, size_t size) {
  return Opaque(realloc(old, size));
}

namespace {

size_t All(size_t size) { return size; }

struct Function {
  const char* name;
  void* (*allocate)(size_t);
  size_t (*bytes)(size_t);  // that it asks for, of the size that it is given
  void (*release)(void*, size_t);
};

void Free(void* block, size_t /*bytes*/) { free(block); }
void Delete(void* block, size_t bytes) { operator delete(block, bytes); }
void DeleteArray(void* block, size_t /*bytes*/) { operator delete[](block); }
void DeleteNothrow(void* block, size_t /*bytes*/) { operator delete(block, std::nothrow); }
void DeleteAligned(void* block, size_t bytes) {
  // jemalloc 5.3 frees wrongly what has no bytes, if it is told so.
  if (bytes == 0) return operator delete (block, std::align_val_t{kAlignment});
  operator delete (block, bytes, std::align_val_t{kAlignment});
}
void DeleteArrayAligned(void* block, size_t /*bytes*/) {
  operator delete[](block, std::align_val_t{kAlignment});
}

constexpr Function kFunctions[] = {
    {"workload_malloc", workload_malloc, All, Free},
    {"workload_calloc", workload_calloc, [](size_t size) { return size / 8 * 8; }, Free},
    {"workload_memalign", workload_memalign, All, Free},
    {"workload_aligned_alloc", workload_aligned_alloc, All, Free},
    {"workload_posix_memalign", workload_posix_memalign, All, Free},
    {"workload_valloc", workload_valloc, All, Free},
    {"workload_reallocarray", workload_reallocarray, [](size_t size) { return size / 4 * 4; },
     Free},
    {"workload_realloc_of_nothing", workload_realloc_of_nothing, All, Free},
    {"workload_strdup", workload_strdup, [](size_t size) { return size % 4096 + 1; }, Free},
    // The last that free() takes; realloc too.
    {"workload_realloc", nullptr, All, Free},
    {"workload_new", workload_new, All, Delete},
    {"workload_new_array", workload_new_array, All, DeleteArray},
    {"workload_new_nothrow", workload_new_nothrow, All, DeleteNothrow},
    {"workload_new_aligned", workload_new_aligned, All, DeleteAligned},
    {"workload_new_array_aligned", workload_new_array_aligned, All, DeleteArrayAligned},
    // Not for Operate: one block lives all the time.
    {"workload_like_null", workload_like_null, All, Free},
};
constexpr uint32_t kFunctionCount = std::size(kFunctions);
constexpr uint32_t kRealloc = 9;
constexpr uint32_t kLikeNull = kFunctionCount - 1;

struct Slot {
  std::atomic_flag taken;
  uint32_t function;
  void* block;
  size_t bytes;
};

// May be negative in one thread: another one allocated what it freed.
struct Books {
  int64_t allocated_objects[kFunctionCount];
  int64_t allocated_bytes[kFunctionCount];
  int64_t live_objects[kFunctionCount];
  int64_t live_bytes[kFunctionCount];

  void Allocated(uint32_t function, size_t bytes) {
    ++allocated_objects[function];
    allocated_bytes[function] += static_cast<int64_t>(bytes);
    ++live_objects[function];
    live_bytes[function] += static_cast<int64_t>(bytes);
  }
  void Freed(uint32_t function, size_t bytes) {
    --live_objects[function];
    live_bytes[function] -= static_cast<int64_t>(bytes);
  }
};

Slot slots[kSlots];
Books books[kMostThreads];

size_t RandomSize(std::mt19937_64& random) {
  const uint64_t kind = random() % 100;
  if (kind == 0) return 0;
  if (kind == 1) return random() % 200'000;
  return random() % 2000;
}

void Reallocate(Slot& slot, size_t size, bool fail, Books& mine) {
  // Neither the compiler nor the allocator shall believe in it.
  size_t wanted = fail ? SIZE_MAX / 2 - 100 : size;
  asm volatile("" : "+r"(wanted));
  void* const block = workload_realloc(slot.block, wanted);
  if (block == nullptr && wanted != 0) return;
  mine.Freed(slot.function, slot.bytes);
  if (block != nullptr) mine.Allocated(kRealloc, wanted);
  slot.block = block;
  slot.function = kRealloc;
  slot.bytes = wanted;
}

void Operate(Slot& slot, std::mt19937_64& random, Books& mine) {
  const size_t size = RandomSize(random);
  if (slot.block == nullptr) {
    auto function = static_cast<uint32_t>(random() % kLikeNull);
    if (function == kRealloc) function = 0;
    slot.function = function;
    slot.bytes = kFunctions[function].bytes(size);
    slot.block = kFunctions[function].allocate(size);
    if (slot.block != nullptr) mine.Allocated(function, slot.bytes);
    return;
  }
  const uint64_t what = random() % 100;
  if (slot.function <= kRealloc && what < 40) {
    Reallocate(slot, size, what == 0, mine);
    return;
  }
  mine.Freed(slot.function, slot.bytes);
  kFunctions[slot.function].release(slot.block, slot.bytes);
  slot.block = nullptr;
  free(Opaque(slot.block));
  operator delete(Opaque(slot.block));
}

void Work(uint64_t operations, uint64_t seed, Books& mine) {
  std::mt19937_64 random(seed);
  for (uint64_t i = 0; i < operations; ++i) {
    Slot& slot = slots[random() % kSlots];
    if (slot.taken.test_and_set(std::memory_order_acquire)) continue;
    Operate(slot, random, mine);
    slot.taken.clear(std::memory_order_release);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const uint64_t operations = strtoul(argv[2], nullptr, 10);
  const int threads = atoi(argv[3]);
  const uint64_t seed = strtoul(argv[4], nullptr, 10);
  if (threads < 1 || threads > kMostThreads) return 2;
  if (workload_like_null(1000) != nullptr) books[0].Allocated(kLikeNull, 1000);
  std::thread running[kMostThreads];
  for (int i = 0; i < threads; ++i) {
    running[i] =
        std::thread([=] { Work(operations / threads, seed * kMostThreads + i, books[i]); });
  }
  for (int i = 0; i < threads; ++i) running[i].join();
  if (const int error = heapflare_dump(argv[1]); error != 0) {
    fprintf(stderr, "exact_workload: heapflare_dump: error %d\n", error);
    return 1;
  }
  for (uint32_t function = 0; function < kFunctionCount; ++function) {
    int64_t sums[4] = {};
    for (const Books& one : books) {
      sums[0] += one.allocated_objects[function];
      sums[1] += one.allocated_bytes[function];
      sums[2] += one.live_objects[function];
      sums[3] += one.live_bytes[function];
    }
    printf("%s %ld %ld %ld %ld\n", kFunctions[function].name, sums[0], sums[1], sums[2], sums[3]);
  }
  return 0;
}
