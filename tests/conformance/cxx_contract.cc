// The contract of operator new and delete, as observations that two runs can be compared by, and
// blocks of every form that a profile must hold exactly once. Built with -fno-builtin.
//
//   cxx_contract                          forms, alignments, constructors that throw
//   cxx_contract out-of-memory            new_handlers and what comes after them
//   cxx_contract nothrow-handler-throws   what allocators differ in
#include <sys/resource.h>

#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include "tests/conformance/held.h"

namespace {

using conformance::Hold;

const volatile size_t too_large = static_cast<size_t>(PTRDIFF_MAX) - 1000;
constexpr size_t kMuch = size_t{1} << 30;
const std::align_val_t kAligned{256};

// --- Every form, held ---

CONFORMANCE_HOLDER(HoldNew, operator new(1001))
CONFORMANCE_HOLDER(HoldNewArray, operator new[](1002))
CONFORMANCE_HOLDER(HoldNewNothrow, operator new(1003, std::nothrow))
CONFORMANCE_HOLDER(HoldNewArrayNothrow, operator new[](1004, std::nothrow))
CONFORMANCE_HOLDER(HoldNewAligned, operator new(1024, kAligned))
CONFORMANCE_HOLDER(HoldNewArrayAligned, operator new[](1280, kAligned))
CONFORMANCE_HOLDER(HoldNewAlignedNothrow, operator new(1536, kAligned, std::nothrow))
CONFORMANCE_HOLDER(HoldNewArrayAlignedNothrow, operator new[](1792, kAligned, std::nothrow))
CONFORMANCE_HOLDER(HoldMalloc, malloc(1005))
CONFORMANCE_HOLDER(HoldCalloc, calloc(1, 1006))
CONFORMANCE_HOLDER(HoldAlignedAlloc, aligned_alloc(256, 2048))

// Moved, and failed to be moved: it is the block of its last successful allocation.
CONFORMANCE_HOLDER(HoldRealloced, realloc(malloc(10), 1007))
[[gnu::noinline]] void* HoldFailedRealloc() {
  void* const block = malloc(1008);
  if (realloc(block, too_large) != nullptr) std::printf("impossible\n");
  return block;
}

struct OwnNew {
  static void* operator new(size_t size) { return malloc(size); }
  static void operator delete(void* block) { free(block); }
  char bytes[1009];
};
CONFORMANCE_HOLDER(HoldClassOwnNew, new OwnNew)

void EveryForm() {
  Hold("HoldNew", 1001, HoldNew);
  Hold("HoldNewArray", 1002, HoldNewArray);
  Hold("HoldNewNothrow", 1003, HoldNewNothrow);
  Hold("HoldNewArrayNothrow", 1004, HoldNewArrayNothrow);
  Hold("HoldNewAligned", 1024, HoldNewAligned);
  Hold("HoldNewArrayAligned", 1280, HoldNewArrayAligned);
  Hold("HoldNewAlignedNothrow", 1536, HoldNewAlignedNothrow);
  Hold("HoldNewArrayAlignedNothrow", 1792, HoldNewArrayAlignedNothrow);
  Hold("HoldMalloc", 1005, HoldMalloc);
  Hold("HoldCalloc", 1006, HoldCalloc);
  Hold("HoldAlignedAlloc", 2048, HoldAlignedAlloc);
  Hold("HoldRealloced", 1007, HoldRealloced);
  Hold("HoldFailedRealloc", 1008, HoldFailedRealloc);
  Hold("HoldClassOwnNew", sizeof(OwnNew), HoldClassOwnNew);
}

// Allocated and freed by the matching form: nothing of it is left in the profile.
[[gnu::noinline]] void FreeEveryForm() {
  for (size_t size : {0, 1, 100, 5000, 300000}) {
    operator delete(operator new(size));
    operator delete(operator new(size), size);
    operator delete(operator new(size, std::nothrow), std::nothrow);
    operator delete[](operator new[](size));
    operator delete[](operator new[](size), size);
    operator delete[](operator new[](size, std::nothrow), std::nothrow);
    operator delete(operator new(size, kAligned), kAligned);
    operator delete(operator new(size, kAligned), size, kAligned);
    operator delete(operator new(size, kAligned, std::nothrow), kAligned, std::nothrow);
    operator delete[](operator new[](size, kAligned), kAligned);
    operator delete[](operator new[](size, kAligned), size, kAligned);
    operator delete[](operator new[](size, kAligned, std::nothrow), kAligned, std::nothrow);
  }
  operator delete(nullptr);
  operator delete(nullptr, 8);
  operator delete[](nullptr, kAligned);
  std::printf("freed FreeEveryForm\n");
}

void Alignment() {
  bool natural = true;
  bool asked = true;
  for (size_t size = 0; size < 70000; size = size * 2 + 1) {
    void* const plain = operator new(size);
    natural &= plain != nullptr && reinterpret_cast<uintptr_t>(plain) % 8 == 0;
    operator delete(plain);
    for (size_t alignment = 1; alignment <= 65536; alignment *= 2) {
      const std::align_val_t value{alignment};
      void* const one = operator new(size, value);
      void* const array = operator new[](size, value, std::nothrow);
      asked &= reinterpret_cast<uintptr_t>(one) % alignment == 0;
      asked &= reinterpret_cast<uintptr_t>(array) % alignment == 0;
      operator delete(one, value);
      operator delete[](array, value);
    }
  }
  std::printf("new alignment natural %d asked %d\n", natural, asked);
}

// --- Out of memory ---

int handler_calls = 0;

template <typename Try>
void Attempt(const char* name, Try attempt) {
  handler_calls = 0;
  const char* outcome = "?";
  try {
    outcome = attempt() == nullptr ? "null" : "block";
  } catch (const std::bad_alloc&) {
    outcome = "bad_alloc";
  } catch (int value) {
    outcome = value == 42 ? "the handler's own exception" : "a wrong exception";
  }
  std::printf("%s: %s after %d calls of the handler\n", name, outcome, handler_calls);
}

void AttemptThrowing() {
  Attempt("new", [] { return operator new(too_large); });
  Attempt("new[]", [] { return operator new[](too_large); });
  Attempt("new aligned", [] { return operator new(too_large, kAligned); });
  Attempt("new[] aligned", [] { return operator new[](too_large, kAligned); });
  Attempt("vector", [] { return new std::vector<char>(too_large); });
}

void AttemptNothrow() {
  Attempt("new nothrow", [] { return operator new(too_large, std::nothrow); });
  Attempt("new[] nothrow", [] { return operator new[](too_large, std::nothrow); });
  Attempt("new aligned nothrow", [] { return operator new(too_large, kAligned, std::nothrow); });
  Attempt("new[] aligned nothrow",
          [] { return operator new[](too_large, kAligned, std::nothrow); });
}

std::jmp_buf out_of_handler;
rlim_t former_limit = 0;

void LimitAddressSpace(rlim_t bytes) {
  rlimit limit = {};
  getrlimit(RLIMIT_AS, &limit);
  limit.rlim_cur = bytes;
  setrlimit(RLIMIT_AS, &limit);
}

size_t AddressSpace() {
  unsigned long pages = 0;
  FILE* const file = fopen("/proc/self/statm", "r");
  if (file == nullptr || fscanf(file, "%lu", &pages) != 1) abort();
  fclose(file);
  return pages * 4096;
}

void OutOfMemory() {
  std::printf("no handler\n");
  AttemptThrowing();
  AttemptNothrow();

  std::printf("a handler that gives up at its third call\n");
  const auto give_up = [] {
    if (++handler_calls == 3) std::set_new_handler(nullptr);
  };
  for (auto* attempt : {AttemptThrowing, AttemptNothrow}) {
    std::set_new_handler(give_up);
    attempt();
  }

  std::printf("a handler that throws bad_alloc\n");
  std::set_new_handler([] {
    ++handler_calls;
    throw std::bad_alloc();
  });
  AttemptThrowing();
  AttemptNothrow();

  std::printf("a handler that throws something else\n");
  std::set_new_handler([] {
    ++handler_calls;
    throw 42;
  });
  AttemptThrowing();

  std::printf("a handler that jumps out\n");
  std::set_new_handler([] {
    ++handler_calls;
    std::longjmp(out_of_handler, 1);
  });
  volatile int jumps = 0;
  handler_calls = 0;
  if (setjmp(out_of_handler) != 0) jumps = jumps + 1;
  if (jumps < 5) operator delete(operator new(too_large));
  std::printf("jumped %d times\n", jumps);

  // The handler allocates itself, and a request succeeds once it has made room.
  rlimit limit = {};
  getrlimit(RLIMIT_AS, &limit);
  former_limit = limit.rlim_cur;
  std::set_new_handler([] {
    if (++handler_calls == 2) LimitAddressSpace(former_limit);
    operator delete(operator new(100));
  });
  LimitAddressSpace(AddressSpace() + (64 << 20));
  Attempt("new with a handler that makes room", [] { return operator new(kMuch); });
  LimitAddressSpace(AddressSpace() + (64 << 20));
  Attempt("nothrow with a handler that makes room",
          [] { return operator new(kMuch, std::nothrow); });
  std::set_new_handler(nullptr);
}

// --- Exceptions ---

struct Thrower {
  explicit Thrower(int depth) : payload(100, depth) {
    if (depth == 0) throw std::string(500, 'e');
    delete new Thrower(depth - 1);
  }
  std::vector<int> payload;
};

// A constructor throws: new gives its block back.
[[gnu::noinline]] void FreeThrowing() {
  int caught = 0;
  for (int i = 0; i < 50; ++i) {
    try {
      delete new Thrower(i % 7);
    } catch (const std::string& text) {
      caught += text.size() == 500;
    }
  }
  std::printf("caught %d\nfreed FreeThrowing\n", caught);
}

}  // namespace

int main(int argc, char** argv) {
  setvbuf(stdout, nullptr, _IOLBF, 0);
  const std::string part = argc > 1 ? argv[1] : "";
  if (part == "out-of-memory") {
    OutOfMemory();
  } else if (part == "nothrow-handler-throws") {
    // Undefined by the standard; libstdc++ returns null, others terminate.
    std::set_new_handler([] { throw 42; });
    AttemptNothrow();
  } else {
    EveryForm();
    Alignment();
    FreeEveryForm();
    FreeThrowing();
  }
  return 0;
}
