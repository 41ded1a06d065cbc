// Twenty call sites that allocate blocks of one size each, some freed and some kept, and what is
// true of them.
//
//   sites PROFILE DIVISOR
//
// Writes a profile through the C API to PROFILE and then one line per site: its function, the size
// of its blocks, and how many of them it allocated and kept. DIVISOR divides the counts, for runs
// in which every allocation is recorded. The very first thing that main does is an allocation of
// site_00.
#include <cstdio>
#include <cstdlib>
#include <iterator>

#include "heapflare/heapflare.h"

namespace {

struct Site {
  const char* function;
  size_t size;
  size_t count;
  size_t keep_every;  // 0: none is kept
  size_t allocated;
  size_t kept;
};

// The smallest blocks are many: at an interval of 512 KiB a site that keeps blocks has at least 3
// live samples, all have 15 and more.
Site sites[] = {
    {"site_00", 1, 4'000'000, 4, 0, 0},  {"site_01", 8, 2'000'000, 8, 0, 0},
    {"site_02", 16, 1'500'000, 8, 0, 0}, {"site_03", 24, 1'000'000, 8, 0, 0},
    {"site_04", 64, 600'000, 4, 0, 0},   {"site_05", 100, 400'000, 4, 0, 0},
    {"site_06", 256, 200'000, 3, 0, 0},  {"site_07", 500, 80'000, 2, 0, 0},
    {"site_08", 1000, 40'000, 1, 0, 0},  {"site_09", 1500, 40'000, 0, 0, 0},
    {"site_10", 4096, 12'000, 2, 0, 0},  {"site_11", 5000, 10'000, 3, 0, 0},
    {"site_12", 10'000, 5'000, 1, 0, 0}, {"site_13", 16 << 10, 3'000, 2, 0, 0},
    {"site_14", 40'000, 1'000, 0, 0, 0}, {"site_15", 64 << 10, 800, 4, 0, 0},
    {"site_16", 100'000, 600, 2, 0, 0},  {"site_17", 256 << 10, 300, 3, 0, 0},
    {"site_18", 1 << 20, 120, 4, 0, 0},  {"site_19", 4 << 20, 60, 10, 0, 0},
};

// One block: kept, that is leaked, or given back at once.
inline void Book(Site& site, void* block) {
  asm volatile("" : "+r"(block));  // the compiler may leave out what nobody looks at
  const size_t number = site.allocated++;
  if (site.keep_every != 0 && number % site.keep_every == 0) {
    ++site.kept;
  } else {
    free(block);
  }
}

}  // namespace

// Named for nm, not inlined, and not a tail call: the profile must show each as a caller.
#define SITE(number)                                                          \
  extern "C" [[gnu::noinline]] void site_##number(Site& site, size_t count) { \
    for (size_t i = 0; i < count; ++i) Book(site, malloc(site.size));         \
  }
// clang-format off
SITE(00) SITE(01) SITE(02) SITE(03) SITE(04) SITE(05) SITE(06) SITE(07) SITE(08) SITE(09)
SITE(10) SITE(11) SITE(12) SITE(13) SITE(14) SITE(15) SITE(16) SITE(17) SITE(18) SITE(19)
    // clang-format on

    int main(int argc, char** argv) {
  site_00(sites[0], 1);
  if (argc != 3) return 2;
  const size_t divisor = strtoul(argv[2], nullptr, 10);
  if (divisor == 0) return 2;
  void (*const functions[])(Site&, size_t) = {
      site_00, site_01, site_02, site_03, site_04, site_05, site_06, site_07, site_08, site_09,
      site_10, site_11, site_12, site_13, site_14, site_15, site_16, site_17, site_18, site_19};
  // In turns, so that the sites' samples lie between each other's.
  constexpr size_t kTurns = 8;
  for (size_t turn = 0; turn < kTurns; ++turn) {
    for (size_t i = 0; i < std::size(functions); ++i) {
      functions[i](sites[i], sites[i].count / divisor / kTurns + 1);
    }
  }
  if (const int error = heapflare_dump(argv[1]); error != 0) {
    fprintf(stderr, "sites: heapflare_dump: error %d\n", error);
    return 1;
  }
  for (const Site& site : sites) {
    printf("%s %zu %zu %zu\n", site.function, site.size, site.allocated, site.kept);
  }
  return 0;
}
