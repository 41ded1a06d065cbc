// startup_bench COUNT PROGRAM VARIANT...: runs PROGRAM with each VARIANT in turn, COUNT times all.
// A VARIANT is a list of VARIABLE=VALUE, one a line, added to the environment. Prints for each
// VARIANT the median ns from spawn to exit: {"ns": [...]}.
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "tests/bench/measure.h"

using namespace heapflare::bench;

namespace {

struct Variant {
  std::vector<std::string> added;
  std::vector<char*> environment;
  std::vector<double> times;
};

void Read(const char* text, Variant* variant) {
  for (const char* line = text; *line != '\0';) {
    const char* const end = strchrnul(line, '\n');
    if (end != line) variant->added.emplace_back(line, end);
    line = *end == '\0' ? end : end + 1;
  }
  for (char** inherited = environ; *inherited != nullptr; ++inherited) {
    variant->environment.push_back(*inherited);
  }
  for (std::string& added : variant->added) variant->environment.push_back(added.data());
  variant->environment.push_back(nullptr);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  const long count = atol(argv[1]);
  char* arguments[] = {argv[2], nullptr};
  std::vector<Variant> variants(static_cast<size_t>(argc) - 3);
  for (size_t i = 0; i < variants.size(); ++i) Read(argv[i + 3], &variants[i]);
  for (long i = 0; i < count; ++i) {
    for (Variant& variant : variants) {
      const int64_t start = Nanoseconds(CLOCK_MONOTONIC);
      pid_t child = 0;
      int status = 0;
      if (posix_spawn(&child, argv[2], nullptr, nullptr, arguments, variant.environment.data()) !=
              0 ||
          waitpid(child, &status, 0) != child || status != 0) {
        return 1;
      }
      variant.times.push_back(static_cast<double>(Nanoseconds(CLOCK_MONOTONIC) - start));
    }
  }
  const char* separator = "{\"ns\": [";
  for (const Variant& variant : variants) {
    printf("%s%.0f", separator, Median(variant.times));
    separator = ", ";
  }
  printf("]}\n");
}
