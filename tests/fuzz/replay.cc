// Gives a target the files that are named on the command line, and those in directories named there:
// so what a fuzzer found once is looked at by every build, with any compiler.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "tests/fuzz/fuzz_target.h"

int main(int argc, char** argv) {
  namespace fs = std::filesystem;
  std::vector<fs::path> files;
  for (int i = 1; i < argc; ++i) {
    if (!fs::is_directory(argv[i])) {
      files.emplace_back(argv[i]);
      continue;
    }
    for (const auto& entry : fs::directory_iterator(argv[i])) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  for (const fs::path& path : files) {
    std::ifstream file(path, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    if (!file) {
      fprintf(stderr, "%s: cannot be read\n", path.c_str());
      return 1;
    }
    // Before it is run: a crash is then told by the last line.
    printf("%s, %zu bytes\n", path.c_str(), bytes.size());
    fflush(stdout);
    heapflare::fuzz::FuzzOne(bytes);
  }
  printf("%zu inputs replayed\n", files.size());
  // An empty directory would prove nothing.
  return files.empty() ? 1 : 0;
}
