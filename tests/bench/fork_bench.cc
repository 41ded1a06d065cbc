// fork_bench [COUNT]: fork, exit in the child after 100 allocations, wait. Prints ns, the median.
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/measure.h"

using namespace heapflare::bench;

int main(int argc, char** argv) {
  std::vector<double> times(static_cast<size_t>(Argument(argc, argv, 1, 300)));
  for (double& time : times) {
    const int64_t start = Nanoseconds(CLOCK_MONOTONIC);
    const pid_t child = fork();
    if (child < 0) return 1;
    if (child == 0) {
      for (int i = 0; i < 100; ++i) Escape(malloc(64));
      exit(0);
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0) return 1;
    time = static_cast<double>(Nanoseconds(CLOCK_MONOTONIC) - start);
  }
  PrintNanoseconds(Median(times));
}
