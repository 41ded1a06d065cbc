// Allocates in places whose names the test looks for, forks, and ends without a clean exit, which
// would remove the box. Prints the process ids of the child and of itself.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#define EXPORTED extern "C" __attribute__((noinline, visibility("default")))

// Nobody calls them by other names or leaves them out.
EXPORTED void* AllocateHeld(size_t bytes) {
  void* const block = malloc(bytes);
  asm volatile("" : : "r"(block) : "memory");
  return block;
}
EXPORTED void Hold(int count) {
  for (int i = 0; i < count; ++i) AllocateHeld(1000);
  asm volatile("");
}
EXPORTED void Free(int count) {
  for (int i = 0; i < count; ++i) free(AllocateHeld(3000));
  asm volatile("");
}
EXPORTED void HoldInThread() {
  std::thread([] { Hold(50); }).join();
  asm volatile("");
}
EXPORTED void HoldInChild() {
  Hold(7);
  asm volatile("");
}

int main() {
  Hold(100);
  Free(20);
  HoldInThread();
  const pid_t child = fork();
  if (child == 0) {
    HoldInChild();
    _exit(0);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || status != 0) return 1;
  printf("%d %d\n", child, getpid());
  fflush(stdout);
  _exit(0);
}
