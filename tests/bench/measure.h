// What the benchmark programs share: clocks, medians, and the one line of JSON that each prints.
#pragma once

#include <heapflare/heapflare.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace heapflare::bench {

inline int64_t Nanoseconds(clockid_t clock) {
  timespec now = {};
  clock_gettime(clock, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

inline double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 != 0 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// Makes the compiler believe that somebody reads and writes what `pointer` points to, or it would
// drop a malloc whose block is only freed.
inline void Escape(void* pointer) { asm volatile("" : : "r"(pointer) : "memory"); }

// The result of a program that measures one operation.
inline void PrintNanoseconds(double nanoseconds) {
  printf("{\"ns\": %.3f, \"active\": %d}\n", nanoseconds, heapflare_active());
}

inline long Argument(int argc, char** argv, int index, long otherwise) {
  return index < argc ? atol(argv[index]) : otherwise;
}

}  // namespace heapflare::bench
