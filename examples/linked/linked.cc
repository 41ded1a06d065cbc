// A program that brings heapflare along instead of having it preloaded. The same source is built
// three ways, see CMakeLists.txt: as a dynamic program, as a static one, and with an allocator that
// is linked statically.
#include <heapflare/heapflare.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace linked {

// Keeps what it makes: the leak that the profile shows.
__attribute__((noinline)) void Remember(std::vector<char*>* memory, size_t bytes) {
  char* const block = new char[bytes];
  memset(block, 1, bytes);
  memory->push_back(block);
}

// Keeps nothing.
__attribute__((noinline)) size_t Work() {
  std::vector<std::string> words;
  for (int i = 0; i < 100; ++i) words.emplace_back(static_cast<size_t>(200 + i), 'x');
  return words.size();
}

}  // namespace linked

int main(int argc, char** argv) {
  const char* const path = argc > 1 ? argv[1] : "linked.pb.gz";
  std::printf("recording: %s, one sample per %zu bytes\n", heapflare_active() ? "yes" : "no",
              heapflare_sample_interval());
  heapflare_set_sample_interval(1);

  std::vector<char*> memory;
  size_t done = 0;
  for (int i = 0; i < 2000; ++i) {
    linked::Remember(&memory, 4096);
    done += linked::Work();
  }
  const int error = heapflare_dump(path);
  if (error != 0) {
    std::fprintf(stderr, "linked: no profile: %s\n", strerror(error));
    return 1;
  }
  std::printf("%zu words, %zu blocks; profile: %s\n", done, memory.size(), path);
  return 0;
}
