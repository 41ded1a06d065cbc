// Allocates in functions that are inlined into one another, in classes without a name, lambdas,
// templates and code that is made at run time. Then closes its output, and ends when its input does.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace {

std::vector<void*> kept;

inline __attribute__((always_inline)) void* Inner(size_t bytes) { return malloc(bytes); }
inline __attribute__((always_inline)) void* Middle(size_t bytes) {
  void* const block = Inner(bytes * 2);
  kept.push_back(block);
  return block;
}

struct Shelf {
  __attribute__((noinline)) void Fill() {
    for (int i = 0; i < 100; ++i) Middle(500);
  }
};

template <class Value>
__attribute__((noinline)) void Insert(std::map<int, Value>* values) {
  for (int i = 0; i < 100; ++i) (*values)[i] = Value(300, 'x');
}

// A function that calls its first argument with its second.
void* Compiled(void* (*function)(size_t), size_t bytes) {
#if defined(__x86_64__)
  constexpr unsigned char kCode[] = {0x48, 0x83, 0xec, 0x08, 0x48, 0x89, 0xf8, 0x48, 0x89,
                                     0xf7, 0xff, 0xd0, 0x48, 0x83, 0xc4, 0x08, 0xc3};
  void* const page =
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return nullptr;
  memcpy(page, kCode, sizeof(kCode));
  const std::string name = "/tmp/perf-" + std::to_string(getpid()) + ".map";
  if (FILE* const map = fopen(name.c_str(), "w")) {
    fprintf(map, "%lx %zx script:render\n", reinterpret_cast<unsigned long>(page), sizeof(kCode));
    fclose(map);
  }
  using Code = void* (*)(void* (*)(size_t), size_t);
  return reinterpret_cast<Code>(reinterpret_cast<uintptr_t>(page))(function, bytes);
#else
  return function(bytes);
#endif
}

}  // namespace

extern "C" __attribute__((noinline)) void plain_c(size_t bytes) { kept.push_back(malloc(bytes)); }

int main() {
  Shelf().Fill();
  std::map<int, std::string> values;
  Insert(&values);
  const auto by_lambda = [](size_t bytes) __attribute__((noinline)) {
    kept.push_back(malloc(bytes));
  };
  for (int i = 0; i < 100; ++i) by_lambda(700);
  plain_c(900);
  kept.push_back(Compiled(&malloc, 1100));
  puts("ready");
  fflush(stdout);
  char end = 0;
  return read(STDIN_FILENO, &end, 1) < 0 ? 1 : 0;
}
