// A program that does what it is told, one command a line on standard input, and answers each with
// one line: what the tests of the recorder need a service to do. Its functions bear names that the
// tests look for in profiles.
//
//   hold BYTES SIZE    allocates BYTES in blocks of SIZE, fills them, keeps them
//   drop               frees all that is held
//   huge BYTES         one malloc of BYTES that is not touched, and its free
//   deep FRAMES        one block of 1 KiB, kept, allocated below FRAMES calls
//   stacks COUNT       COUNT blocks of 1 KiB, freed at once, each from a stack of its own
//   file PATH BYTES    writes a file, as page cache
//   interval [BYTES]   sets the sample interval through the C API; without BYTES tells it
//   dump PATH          heapflare_dump(PATH), or of NULL for "-"
//   handler            installs a handler for SIGUSR2, which counts; "signals" tells how many came
//   fork               a child that waits for "child COMMAND" lines; tells its PID
//   vfork              a vfork child that allocates and frees 100 blocks and ends
//   exec PROGRAM       becomes PROGRAM, which reads on
//   end HOW            exit, _exit, abort, segv, pthread_exit
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string>

#include "heapflare/heapflare.h"

namespace {

struct Block {
  Block* next;
};
Block* held = nullptr;
volatile sig_atomic_t signals = 0;
FILE* child_input = nullptr;
FILE* child_output = nullptr;

}  // namespace

// Outside of the namespace, so that `go tool pprof` names them as well.
[[gnu::noinline]] void HoldBlocks(size_t bytes, size_t size) {
  for (size_t done = 0; done < bytes; done += size) {
    auto* block = static_cast<Block*>(malloc(size));
    if (block == nullptr) abort();
    memset(block, 1, size);
    block->next = held;
    held = block;
  }
}

[[gnu::noinline]] void DropBlocks() {
  while (held != nullptr) {
    Block* next = held->next;
    free(held);
    held = next;
  }
  malloc_trim(0);
}

[[gnu::noinline]] void TheLastStraw(size_t bytes) {
  void* volatile block = malloc(bytes);
  free(block);
}

// The depth is in the number of calls, which the compiler may not turn into a loop.
[[gnu::noinline]] int Descend(int frames) {
  if (frames <= 1) {
    HoldBlocks(1024, 1024);
    return 0;
  }
  const int below = Descend(frames - 1);
  asm volatile("" ::: "memory");
  return below + 1;
}

[[gnu::noinline]] int Branch(uint32_t path, int bits);
// Two ways down, so that every number is a stack of its own.
[[gnu::noinline]] int TurnLeft(uint32_t path, int bits) {
  const int below = Branch(path, bits);
  asm volatile("" ::: "memory");
  return below + 1;
}
[[gnu::noinline]] int TurnRight(uint32_t path, int bits) {
  const int below = Branch(path, bits);
  asm volatile("" ::: "memory");
  return below + 2;
}
int Branch(uint32_t path, int bits) {
  if (bits == 0) {
    void* volatile block = malloc(1024);
    free(block);
    return 0;
  }
  const int below =
      (path & 1) != 0 ? TurnLeft(path >> 1, bits - 1) : TurnRight(path >> 1, bits - 1);
  asm volatile("" ::: "memory");
  return below + 1;
}

[[gnu::noinline]] void AllocateInVforkChild() {
  for (int i = 0; i < 100; ++i) {
    void* volatile block = malloc(5000);
    free(block);
  }
}

namespace {

void WriteFile(const std::string& path, size_t bytes) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  static char page[1 << 16];
  while (bytes > 0) {
    const size_t part = bytes < sizeof(page) ? bytes : sizeof(page);
    if (write(fd, page, part) != static_cast<ssize_t>(part)) abort();
    bytes -= part;
  }
  // The kernel can drop what is on disk.
  fsync(fd);
  close(fd);
}

void Count(int /*signal*/) { signals = signals + 1; }

pid_t Fork() {
  int down[2];
  int up[2];
  if (pipe(down) != 0 || pipe(up) != 0) abort();
  const pid_t child = fork();
  if (child == 0) {
    dup2(down[0], 0);
    dup2(up[1], 1);
    for (const int fd : {down[0], down[1], up[0], up[1]}) close(fd);
    std::cin.clear();
    return 0;
  }
  close(down[0]);
  close(up[1]);
  child_input = fdopen(down[1], "w");
  child_output = fdopen(up[0], "r");
  return child;
}

pid_t Vfork() {
  const pid_t child = vfork();
  if (child == 0) {
    AllocateInVforkChild();
    _exit(0);
  }
  waitpid(child, nullptr, 0);
  return child;
}

void* PassOn(void* /*unused*/) { return nullptr; }

void End(const std::string& how) {
  std::cout << "ok" << std::endl;
  if (how == "exit") exit(0);
  if (how == "_exit") _exit(0);
  if (how == "abort") abort();
  if (how == "segv") *static_cast<volatile int*>(nullptr) = 1;
  if (how == "pthread_exit") {
    pthread_t thread;
    pthread_create(&thread, nullptr, PassOn, nullptr);
    pthread_detach(thread);
    pthread_exit(nullptr);
  }
}

// The answer.
std::string Obey(const std::string& line) {
  std::istringstream words(line);
  std::string command;
  std::string text;
  size_t a = 0;
  size_t b = 0;
  words >> command;
  std::ostringstream answer;
  if (command == "hold" && words >> a >> b) {
    HoldBlocks(a, b);
  } else if (command == "drop") {
    DropBlocks();
  } else if (command == "huge" && words >> a) {
    TheLastStraw(a);
  } else if (command == "deep" && words >> a) {
    Descend(static_cast<int>(a));
  } else if (command == "stacks" && words >> a) {
    for (size_t i = 0; i < a; ++i) Branch(static_cast<uint32_t>(i), 20);
  } else if (command == "file" && words >> text >> a) {
    WriteFile(text, a);
  } else if (command == "interval") {
    if (words >> a) answer << heapflare_set_sample_interval(a) << ' ';
    answer << heapflare_sample_interval() << ' ' << heapflare_active();
  } else if (command == "dump" && words >> text) {
    answer << heapflare_dump(text == "-" ? nullptr : text.c_str());
  } else if (command == "handler") {
    struct sigaction action = {};
    action.sa_handler = Count;
    // The signal may come while the next line is waited for.
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR2, &action, nullptr);
  } else if (command == "signals") {
    answer << signals;
  } else if (command == "fork") {
    const pid_t child = Fork();
    if (child == 0) return "child";
    answer << child;
  } else if (command == "child") {
    std::string rest;
    std::getline(words >> std::ws, rest);
    fprintf(child_input, "%s\n", rest.c_str());
    fflush(child_input);
    char reply[256] = "";
    if (fgets(reply, sizeof(reply), child_output) == nullptr) return "gone";
    reply[strcspn(reply, "\n")] = 0;
    return reply;
  } else if (command == "vfork") {
    answer << Vfork();
  } else if (command == "exec" && words >> text) {
    execl(text.c_str(), text.c_str(), static_cast<char*>(nullptr));
    return "cannot";
  } else if (command == "end" && words >> text) {
    End(text);
  } else {
    return "what is " + line;
  }
  return answer.str().empty() ? "ok" : answer.str();
}

}  // namespace

int main() {
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    const std::string answer = Obey(line);
    // Nobody waits for the line of a child that was just made.
    if (answer != "child") std::cout << answer << std::endl;
  }
  return 0;
}
