// Built several times under different names: libraries whose code lies at the same addresses, but whose
// build ids differ. The function is named like the library.
#include <cstdlib>

#define PLUGIN_JOIN(a, b) a##b
#define PLUGIN_FUNCTION(name) PLUGIN_JOIN(AllocateIn, name)

// A frame that is not a tail call.
extern "C" [[gnu::noinline]] void* PLUGIN_FUNCTION(PLUGIN_NAME)(std::size_t bytes) {
  void* volatile block = std::malloc(bytes);
  return block;
}

extern "C" void* plugin_allocate(std::size_t bytes) {
  void* volatile block = PLUGIN_FUNCTION(PLUGIN_NAME)(bytes);
  return block;
}

extern "C" const char plugin_mark[] = PLUGIN_MARK;
