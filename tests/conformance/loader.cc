// Loads libraries in unusual ways:
//
//   loader deepbind PLUGIN          a plugin that prefers its own dependencies' symbols
//   loader deepbind-cross PLUGIN    the same, with blocks that change sides
//   loader dlmopen PLUGIN           the plugin in name spaces of its own, with a libc of its own
//   loader tls LIBRARY...           until the static thread-local storage is used up
//   loader fixed-address            calls malloc through its address
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "tests/conformance/held.h"

namespace {

void* Symbol(void* library, const char* name) {
  void* const symbol = library == nullptr ? nullptr : dlsym(library, name);
  if (symbol == nullptr) {
    std::printf("%s\n", dlerror());
    std::exit(1);
  }
  return symbol;
}

int Call(void* library) { return reinterpret_cast<int (*)()>(Symbol(library, "PluginWork"))(); }

void Deepbind(const char* path, bool cross) {
  void* const library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
  std::printf("work %d\n", Call(library));
  int in_thread = 0;
  std::thread([&] { in_thread = Call(library); }).join();
  std::printf("in a thread %d\n", in_thread);
  if (cross) {
    auto* const make = reinterpret_cast<void* (*)(size_t)>(Symbol(library, "PluginMake"));
    auto* const copy = reinterpret_cast<char* (*)(const char*)>(Symbol(library, "PluginCopy"));
    auto* const give_back = reinterpret_cast<void (*)(void*)>(Symbol(library, "PluginFree"));
    for (size_t size = 1; size < 1000000; size *= 2) {
      free(make(size));
      give_back(malloc(size));
      give_back(realloc(make(size), size + 1000));
    }
    give_back(copy("libc's strdup calls the program's malloc"));
    std::printf("crossed\n");
  }
  std::printf("close %d\n", dlclose(library));
}

void Dlmopen(const char* path) {
  for (int i = 0; i < 3; ++i) {
    void* const library = dlmopen(LM_ID_NEWLM, path, RTLD_NOW | RTLD_LOCAL);
    std::printf("work %d\n", Call(library));
    std::printf("close %d\n", dlclose(library));
  }
}

void UseUpTls(int count, char** paths) {
  int loaded = 0;
  while (loaded < count && dlopen(paths[loaded], RTLD_NOW) != nullptr) ++loaded;
  std::printf("loaded %d of %d\n", loaded, count);
  if (loaded < count) std::printf("refused %d\n", dlerror() != nullptr);
  // Threads with what there is now.
  for (int i = 0; i < 10; ++i) {
    std::thread([] { delete new std::string(1000, 'x'); }).join();
  }
}

void* (*volatile malloc_by_address)(size_t) = nullptr;
void* (*volatile new_by_address)(size_t) = nullptr;
CONFORMANCE_HOLDER(HoldByAddress, malloc_by_address(777))
CONFORMANCE_HOLDER(HoldNewByAddress, new_by_address(778))

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "deepbind" || what == "deepbind-cross") {
    Deepbind(argv[2], what == "deepbind-cross");
  } else if (what == "dlmopen") {
    Dlmopen(argv[2]);
  } else if (what == "tls") {
    UseUpTls(argc - 2, argv + 2);
  } else if (what == "fixed-address") {
    // Taken by an instruction, in a program at a fixed address: so the linker gives the program an
    // entry for the function, of which the address is the function's for everybody.
    malloc_by_address = malloc;
    new_by_address = operator new;
    conformance::Hold("HoldByAddress", 777, HoldByAddress);
    conformance::Hold("HoldNewByAddress", 778, HoldNewByAddress);
  }
  return 0;
}
