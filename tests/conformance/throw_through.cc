// An exception that is thrown by a callback inside malloc (see sibling_malloc.cc) passes through
// whoever stands in between.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/conformance/held.h"

extern "C" {
[[gnu::weak]] extern void (*sibling_on_malloc)(size_t size);
[[gnu::weak]] extern long sibling_calls;
}

namespace {

// Of these pointers the compiler does not know that they never throw.
void* (*volatile allocate)(size_t) = malloc;
void* (*volatile make)(size_t) = operator new;

CONFORMANCE_HOLDER(HoldAfterwards, allocate(901))

struct Guard {
  explicit Guard(int* count) : count_(count) {}
  ~Guard() { ++*count_; }
  int* count_;
};

template <typename Request>
void Attempt(const char* name, Request request) {
  int caught = 0;
  int unwound = 0;
  for (int i = 0; i < 50; ++i) {
    try {
      const Guard guard(&unwound);
      request();
    } catch (int value) {
      caught += value;
    }
  }
  std::printf("%s: caught %d unwound %d\n", name, caught, unwound);
}

}  // namespace

int main() {
  if (&sibling_on_malloc == nullptr) return 1;
  setvbuf(stdout, nullptr, _IONBF, 0);
  sibling_on_malloc = [](size_t size) {
    if (size == 12345) throw 1;
  };
  Attempt("malloc", [] { return allocate(12345); });
  Attempt("new", [] { return make(12345); });
  sibling_on_malloc = nullptr;
  conformance::Hold("HoldAfterwards", 901, HoldAfterwards);
  const long before = sibling_calls;
  for (int i = 0; i < 100; ++i) free(allocate(100));
  std::printf("the sibling was called %ld times\n", sibling_calls - before);
  return 0;
}
