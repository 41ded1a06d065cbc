// A library that comes and goes while its code is on recorded stacks.
#include <cstdlib>
#include <cstring>

extern "C" __attribute__((noinline, visibility("default"))) void* kill_plugin_allocate(
    size_t bytes) {
  void* const block = std::malloc(bytes);
  if (block != nullptr) std::memset(block, 0x50, 16);
  return block;
}
