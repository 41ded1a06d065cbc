// Leaks by functions with names that suppressions can match, and does what its arguments say:
//   leak      Cache::Insert loses 3 blocks of 1000 bytes, exported_leak one of 500
//   now       asks for a check before and after a leak, prints both answers, goes on
//   status N  ends with exit code N
//   text      prints to a stream that is only flushed at exit
#include <heapflare/heapflare.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace {

struct Cache {
  __attribute__((noinline)) static void Insert() {
    char* volatile block = static_cast<char*>(malloc(1000));
    block[0] = 1;
    block = nullptr;
  }
};

__attribute__((noinline)) void CleanStack() {
  volatile char room[4096];
  for (char volatile& c : room) c = 0;
}

}  // namespace

extern "C" __attribute__((noinline)) void exported_leak() {
  char* volatile block = static_cast<char*>(malloc(500));
  block[0] = 1;
  block = nullptr;
}

int main(int argc, char** argv) {
  int status = 0;
  for (int i = 1; i < argc; ++i) {
    if (strcmp(argv[i], "leak") == 0) {
      for (int k = 0; k < 3; ++k) Cache::Insert();
      exported_leak();
    } else if (strcmp(argv[i], "now") == 0) {
      const int before = heapflare_leak_check_now();
      exported_leak();
      CleanStack();
      const int after = heapflare_leak_check_now();
      printf("%d %d\n", before, after);
    } else if (strcmp(argv[i], "status") == 0 && i + 1 < argc) {
      status = atoi(argv[++i]);
    } else if (strcmp(argv[i], "text") == 0) {
      printf("kept until the end\n");
    }
  }
  CleanStack();
  return status;
}
