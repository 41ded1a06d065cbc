// A service for bad surroundings: does what its arguments say, in their order, and prints what came
// of it. Its last line, "result HEX", depends on its own work only: with and without heapflare,
// whatever fails around, it must be the same.
//
//   work:N       N rounds of allocating, checking and freeing
//   threads:N    N threads, each of which does that
//   fork         a child does it and exits
//   hold:MIB     keeps so much, in blocks of 64 KiB; drop frees it
//   stacks:N     keeps 2^N small blocks, each allocated through another stack
//   big:MIB      one block, freed at once
//   dump         heapflare_dump(NULL); prints its result
//   interval:N   heapflare_set_sample_interval
//   signal:N     raises it, if somebody handles it
//   wait         until a line comes on stdin
//   limit:R=N    setrlimit, soft and hard; R is fsize, as, nofile, nproc, stack or memlock
//   clearenv     clears the environment; setenv: a thread changes it all the time from now on
//   nostderr     closes descriptor 2; reuse2:PATH opens a file of its own as 2, log2:PATH a log
//   _exit        ends without the exit handlers
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "heapflare/heapflare.h"

namespace {

std::atomic<uint64_t> checksum = 0;
std::vector<char*> held;
std::vector<char*> from_stacks;

void Print(std::string_view line) {
  while (!line.empty()) {
    const ssize_t written = write(1, line.data(), line.size());
    if (written < 0 && errno != EINTR) return;
    if (written > 0) line.remove_prefix(static_cast<size_t>(written));
  }
}

[[noreturn]] void Broken(const char* what) {
  Print("broken: ");
  Print(what);
  Print("\n");
  _exit(9);
}

struct Block {
  unsigned char* memory = nullptr;
  size_t bytes = 0;
  unsigned char pattern = 0;
};

void Fill(Block* block, void* memory, size_t bytes, uint64_t random) {
  if (memory == nullptr) Broken("no memory");
  *block = {static_cast<unsigned char*>(memory), bytes, static_cast<unsigned char>(random)};
  memset(memory, block->pattern, bytes);
}

uint64_t Check(const Block& block) {
  uint64_t sum = 0;
  for (size_t i = 0; i < block.bytes; ++i) sum += block.memory[i];
  if (sum != block.bytes * block.pattern) Broken("a block does not hold what was written");
  return sum;
}

// The same for everybody who starts with the same seed.
[[gnu::noinline]] uint64_t Work(uint64_t rounds, uint64_t seed) {
  uint64_t random = seed * 0x9E3779B97F4A7C15 + 1;
  uint64_t sum = 0;
  Block blocks[64];
  for (uint64_t i = 0; i < rounds; ++i) {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    Block& block = blocks[random % 64];
    const size_t bytes = 1 + (random >> 8) % ((random & 0x700) == 0 ? 100'000 : 3'000);
    const unsigned kind = (random >> 40) % 4;
    if (block.memory != nullptr) sum = sum * 31 + Check(block);
    if (kind == 0 && block.memory != nullptr) {
      const size_t kept = block.bytes < bytes ? block.bytes : bytes;
      const unsigned char pattern = block.pattern;
      void* const moved = realloc(block.memory, bytes);
      if (moved == nullptr) Broken("realloc failed");
      block = {static_cast<unsigned char*>(moved), kept, pattern};
      Check(block);
      Fill(&block, moved, bytes, random >> 48);
      continue;
    }
    free(block.memory);
    void* memory = nullptr;
    if (kind == 1) {
      memory = calloc(bytes, 1);
      if (memory != nullptr && *static_cast<char*>(memory) != 0) Broken("calloc gave no zeros");
    } else if (kind == 2) {
      if (posix_memalign(&memory, 256, bytes) != 0) memory = nullptr;
    } else {
      memory = malloc(bytes);
    }
    Fill(&block, memory, bytes, random >> 48);
  }
  for (Block& block : blocks) {
    if (block.memory != nullptr) sum = sum * 31 + Check(block);
    free(block.memory);
  }
  return sum;
}

// Each bit of `path` chooses one of two callers, so that 2^N stacks are different.
[[gnu::noinline]] char* Deep(uint64_t path, int levels);
[[gnu::noinline]] char* Left(uint64_t path, int levels) {
  char* block = Deep(path, levels);
  asm volatile("" : "+r"(block));
  return block;
}
[[gnu::noinline]] char* Right(uint64_t path, int levels) {
  char* block = Deep(path, levels);
  asm volatile("nop" : "+r"(block));
  return block;
}
char* Deep(uint64_t path, int levels) {
  if (levels == 0) return static_cast<char*>(malloc(64));
  char* block = (path & 1) == 0 ? Left(path >> 1, levels - 1) : Right(path >> 1, levels - 1);
  asm volatile("" : "+r"(block));
  return block;
}

void WaitForLine() {
  char c = 0;
  while (read(0, &c, 1) == 1 && c != '\n') {
  }
}

void Limit(std::string_view value) {
  const size_t equals = value.find('=');
  const std::string_view name = value.substr(0, equals);
  const rlim_t most = strtoull(value.substr(equals + 1).data(), nullptr, 10);
  const struct {
    std::string_view name;
    __rlimit_resource resource;
  } limits[] = {{"fsize", RLIMIT_FSIZE}, {"as", RLIMIT_AS},       {"nofile", RLIMIT_NOFILE},
                {"nproc", RLIMIT_NPROC}, {"stack", RLIMIT_STACK}, {"memlock", RLIMIT_MEMLOCK}};
  for (const auto& limit : limits) {
    if (limit.name != name) continue;
    const rlimit both = {most, most};
    if (setrlimit(limit.resource, &both) != 0) Broken("setrlimit failed");
    return;
  }
  Broken("no such limit");
}

void PrintNumber(const char* name, long value) {
  char line[64];
  snprintf(line, sizeof(line), "%s %ld\n", name, value);
  Print(line);
}

void ChangeEnvironment() {
  for (unsigned i = 0;; ++i) {
    setenv("HEAPFLARE_KEEP", i % 2 == 0 ? "3" : "a longer value that needs memory", 1);
    setenv(("VARIABLE_" + std::to_string(i % 500)).c_str(), "x", 1);
    if (i % 1000 == 0) clearenv();
  }
}

void Run(std::string_view action, std::string_view value) {
  const uint64_t number = strtoull(std::string(value).c_str(), nullptr, 10);
  if (action == "work") {
    checksum += Work(number, 1);
  } else if (action == "threads") {
    std::vector<std::thread> threads;
    for (uint64_t i = 0; i < number; ++i) {
      threads.emplace_back([i] { checksum += Work(500, i + 2); });
    }
    for (std::thread& thread : threads) thread.join();
  } else if (action == "fork") {
    const pid_t child = fork();
    if (child < 0) Broken("fork failed");
    if (child == 0) exit(static_cast<int>(Work(500, 77) % 200));
    int status = 0;
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status)) Broken("the child was killed");
    checksum += static_cast<uint64_t>(WEXITSTATUS(status));
  } else if (action == "hold") {
    for (uint64_t i = 0; i < number * 16; ++i) {
      held.push_back(static_cast<char*>(malloc(64 << 10)));
      if (held.back() == nullptr) Broken("no memory");
      memset(held.back(), 1, 64 << 10);
    }
  } else if (action == "drop") {
    for (char* block : held) free(block);
    held.clear();
  } else if (action == "stacks") {
    for (uint64_t path = 0; path < uint64_t{1} << number; ++path) {
      from_stacks.push_back(Deep(path, static_cast<int>(number)));
    }
  } else if (action == "big") {
    void* block = malloc(number << 20);
    asm volatile("" : "+r"(block));
    checksum += block != nullptr;
    free(block);
  } else if (action == "dump") {
    PrintNumber("dump", heapflare_dump(nullptr));
  } else if (action == "interval") {
    heapflare_set_sample_interval(number);
  } else if (action == "signal") {
    struct sigaction current = {};
    sigaction(static_cast<int>(number), nullptr, &current);
    if (current.sa_handler != SIG_DFL) raise(static_cast<int>(number));
  } else if (action == "wait") {
    WaitForLine();
  } else if (action == "limit") {
    Limit(value);
  } else if (action == "clearenv") {
    clearenv();
  } else if (action == "setenv") {
    std::thread(ChangeEnvironment).detach();
  } else if (action == "nostderr") {
    close(2);
  } else if (action == "reuse2" || action == "log2") {
    const bool log = action == "log2";
    close(2);
    const int fd = open(std::string(value).c_str(), O_RDWR | O_CREAT | (log ? O_APPEND : 0), 0600);
    if (fd != 2 || write(fd, "mine\n", 5) != 5) Broken("cannot write a file of mine");
  } else {
    Broken("no such action");
  }
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const size_t colon = argument.find(':');
    const std::string_view action = argument.substr(0, colon);
    if (action == "_exit") break;
    Run(action, colon == std::string_view::npos ? "" : argument.substr(colon + 1));
    Print(std::string(action) + " done\n");
  }
  char line[64];
  snprintf(line, sizeof(line), "result %016llx\n", static_cast<unsigned long long>(checksum));
  Print(line);
  if (argc > 1 && strcmp(argv[argc - 1], "_exit") == 0) _exit(0);
  return 0;
}
