// What loader.cc loads in unusual ways.
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>

extern "C" void* PluginMake(size_t size) { return memset(malloc(size), 1, size); }
extern "C" char* PluginCopy(const char* text) { return strdup(text); }
extern "C" void PluginFree(void* block) { free(block); }

// Allocates and frees in many ways; what it returns depends on their contents.
extern "C" int PluginWork() {
  int sum = 0;
  for (int i = 1; i < 200; ++i) {
    char* text = static_cast<char*>(calloc(1, static_cast<size_t>(i)));
    text = static_cast<char*>(realloc(text, static_cast<size_t>(i) * 100));
    sum += text[i - 1];
    free(text);
    std::map<int, std::string> tree;
    for (int j = 0; j < 10; ++j) tree[j] = std::string(static_cast<size_t>(i), 'x');
    sum += static_cast<int>(tree.size());
    struct alignas(128) Wide {
      char bytes[128];
    };
    sum += std::make_unique<Wide>() != nullptr;
    try {
      throw std::runtime_error(std::string(100, 'e'));
    } catch (const std::exception& problem) {
      sum += static_cast<int>(strlen(problem.what()));
    }
  }
  return sum;
}
