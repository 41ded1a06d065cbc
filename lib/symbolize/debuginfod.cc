#include "lib/symbolize/debuginfod.h"

#include <dlfcn.h>

#include <cstdlib>

namespace heapflare::symbolize {
namespace {

// Not linked: it brings an HTTP client along, which most machines that read profiles do not need.
struct Library {
  using Client = void;
  Client* (*begin)();
  void (*end)(Client*);
  int (*find_debuginfo)(Client*, const unsigned char*, int, char**);
  int (*find_executable)(Client*, const unsigned char*, int, char**);
  bool complete = false;
};

template <typename Function>
bool Load(void* library, const char* name, Function** function) {
  *function = reinterpret_cast<Function*>(dlsym(library, name));
  return *function != nullptr;
}

const Library& TheLibrary() {
  static const Library library = [] {
    Library found = {};
    void* const handle = dlopen("libdebuginfod.so.1", RTLD_NOW | RTLD_LOCAL);
    found.complete = handle != nullptr && Load(handle, "debuginfod_begin", &found.begin) &&
                     Load(handle, "debuginfod_end", &found.end) &&
                     Load(handle, "debuginfod_find_debuginfo", &found.find_debuginfo) &&
                     Load(handle, "debuginfod_find_executable", &found.find_executable);
    return found;
  }();
  return library;
}

}  // namespace

target::Descriptor FetchFromDebuginfod(const std::string& build_id, bool debug_info,
                                       std::string* path) {
  const char* const urls = std::getenv("DEBUGINFOD_URLS");
  if (urls == nullptr || *urls == '\0' || !TheLibrary().complete) return target::Descriptor();
  const Library& library = TheLibrary();
  Library::Client* const client = library.begin();
  if (client == nullptr) return target::Descriptor();
  char* name = nullptr;
  // A length of 0: the build id is in hexadecimal.
  const auto* const id = reinterpret_cast<const unsigned char*>(build_id.c_str());
  const auto find = debug_info ? library.find_debuginfo : library.find_executable;
  target::Descriptor file(find(client, id, 0, &name));
  if (name != nullptr) *path = name;
  std::free(name);
  library.end(client);
  return file;
}

}  // namespace heapflare::symbolize
