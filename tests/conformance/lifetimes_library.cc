// A library that a program is linked with: its constructor runs before a preloaded library's, its
// destructor after it.
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

namespace {

bool Work() {
  bool works = true;
  for (size_t size = 1; size < 100000; size *= 3) {
    char* block = static_cast<char*>(malloc(size));
    memset(block, 1, size);
    block = static_cast<char*>(realloc(block, size * 2));
    works &= block[size - 1] == 1;
    free(block);
    works &= std::string(size, 'x').size() == size;
    void* aligned = nullptr;
    works &= posix_memalign(&aligned, 64, size) == 0;
    free(aligned);
  }
  return works;
}

bool constructor_worked = false;
// Given back after the recorder has closed its box.
std::string* kept = nullptr;

[[gnu::constructor]] void Start() {
  constructor_worked = Work();
  kept = new std::string(5000, 'k');
}

[[gnu::destructor]] void Finish() {
  delete kept;
  // stdio may be gone.
  if (Work() && write(STDOUT_FILENO, "after all destructors\n", 22) < 0) abort();
}

}  // namespace

extern "C" int LibraryConstructorWorked() { return constructor_worked ? 1 : 0; }
