// What the programs of the survival tests have in common: a table of scenarios, checks, and books.
//
// A program is called with the name of a scenario and its numbers. What it prints on stdout must be
// the same with and without the recorder; a line that starts with "books " is the program's own account
// of the blocks that it allocated through Allocate, which the profile must agree with. A check that
// fails says where and ends the program with status 70.
//
// SURVIVAL_END=kill: instead of returning from main the program kills itself, so that its box stays.
#pragma once

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace survival {

#define CHECK(condition)                                                                         \
  do {                                                                                           \
    if (!(condition)) {                                                                          \
      dprintf(2, "%s:%d: %s does not hold (errno %d)\n", __FILE__, __LINE__, #condition, errno); \
      _exit(70);                                                                                 \
    }                                                                                            \
  } while (false)

// All blocks have this size, so that the variance of a sampled estimate follows from their number.
inline constexpr size_t kBlock = 1024;

struct Books {
  std::atomic<int64_t> allocated{0};
  std::atomic<int64_t> freed{0};
  // Of Allocate calls in signal handlers, which may fall between the countdown and its renewal.
  std::atomic<int64_t> in_handlers{0};
};
inline Books books;

// The frame that the profile's samples are found by.
[[gnu::noinline]] inline void* Allocate() {
  void* const block = malloc(kBlock);
  CHECK(block != nullptr);
  memset(block, 0x5a, kBlock);
  books.allocated.fetch_add(1);
  return block;
}

inline void Free(void* block) {
  books.freed.fetch_add(1);
  free(block);
}

// Allocates and frees, so many times, `held` blocks at a time.
inline void Churn(int times, int held = 4) {
  void* blocks[64];
  CHECK(held <= 64);
  for (int i = 0; i < times; ++i) {
    for (int k = 0; k < held; ++k) blocks[k] = Allocate();
    for (int k = 0; k < held; ++k) Free(blocks[k]);
  }
}

// In a forked child, whose box begins empty.
inline void StartBooksOver() {
  books.allocated = 0;
  books.freed = 0;
  books.in_handlers = 0;
}

inline void PrintBooks() {
  printf("books %d %lld %lld %lld\n", static_cast<int>(getpid()),
         static_cast<long long>(books.allocated), static_cast<long long>(books.freed),
         static_cast<long long>(books.in_handlers));
  fflush(stdout);
}

inline double Now() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Computes for a moment, calling nothing.
inline void Spin(int rounds) {
  for (int i = 0; i < rounds; ++i) asm volatile("");
}

// Waits until `condition` holds; false after `seconds`.
template <typename Condition>
bool Await(double seconds, Condition condition) {
  const double end = Now() + seconds;
  while (!condition()) {
    if (Now() > end) return false;
    usleep(1000);
  }
  return true;
}

// Prints the books and either dies (see the top) or returns the exit status of main.
inline int End(int status = 0) {
  PrintBooks();
  const char* const end = getenv("SURVIVAL_END");
  if (end != nullptr && strcmp(end, "kill") == 0) kill(getpid(), SIGKILL);
  return status;
}

struct Scenario {
  const char* name;
  int (*run)(int argc, char** argv);  // the arguments behind the name
};

template <size_t kCount>
int RunScenario(const Scenario (&scenarios)[kCount], int argc, char** argv) {
  for (const Scenario& scenario : scenarios) {
    if (argc > 1 && strcmp(argv[1], scenario.name) == 0) return scenario.run(argc - 2, argv + 2);
  }
  fprintf(stderr, "usage: %s SCENARIO [NUMBER...]; scenarios:", argv[0]);
  for (const Scenario& scenario : scenarios) fprintf(stderr, " %s", scenario.name);
  fprintf(stderr, "\n");
  return 2;
}

inline int Number(int argc, char** argv, int index, int otherwise) {
  return index < argc ? atoi(argv[index]) : otherwise;
}

}  // namespace survival
