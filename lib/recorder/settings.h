// What the HEAPFLARE_ variables ask for. Each variable is listed once, in settings.cc.
//
// Parsed from the block of the environment itself, since getenv finds nothing at the first malloc
// of a process. Never fails: a value that cannot be understood is reported in one line that names
// the variable, the value and what is accepted, and the default is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "lib/base/text.h"

namespace heapflare::recorder {

// One threshold on memory use.
struct Rung {
  uint64_t bytes;    // absolute, if percent is 0
  uint32_t percent;  // of the effective limit, in hundredths: 9000 = 90 %
};
inline constexpr size_t kMaxRungs = 16;

enum class Metric { kWorkingSet, kUsage, kRss };

struct Settings {
  base::Path dump_directory;  // empty: the default
  base::Path box_directory;   // empty: the default
  uint64_t sample_interval = 512 << 10;
  Rung rungs[kMaxRungs] = {{0, 8000}, {0, 9000}, {0, 9500}};
  uint32_t rung_count = 3;
  uint64_t limit = 0;  // bytes; 0: what the cgroup says
  Metric metric = Metric::kWorkingSet;
  uint64_t eta_seconds = 0;
  int signal = 0;  // 0: none
  bool dump_at_exit = false;
  base::Text<1024> programs;  // comma list; empty: all
  uint32_t keep = 10;
  uint64_t box_bytes = 16 << 20;
  uint32_t box_mode = 0600;
  uint32_t max_stack = 64;
  bool verbose = false;
  bool leak_check = false;
  uint32_t leak_exit_code = 23;  // 0: the program's stays
  base::Path leak_suppressions;  // a file; empty: none
  base::Path leak_command;       // the heapflare command; empty: beside the library
  // Not a setting: the process runs under valgrind, which ends programs that clone as we do.
  bool under_valgrind = false;
};

// Called with one line for each value that cannot be understood.
using ReportProblem = void (*)(std::string_view line);

// `environment` is the content of /proc/PID/environ: NAME=value entries, each ending in a zero
// byte.
void ParseSettings(std::string_view environment, Settings* settings, ReportProblem report);

// The same from this process's own environment.
void ReadSettings(Settings* settings, ReportProblem report);

// True if the comma list is empty or contains `name`.
bool NamesProgram(std::string_view list, std::string_view name);

}  // namespace heapflare::recorder
