// Processes as /proc shows them, and whether the one that a box describes still lives.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "lib/box/format.h"

namespace heapflare::target {

struct Process {
  int pid = 0;                 // as seen from here
  int pid_inside = 0;          // as the process sees itself
  uint64_t start_ticks = 0;    // /proc/PID/stat, field 22
  uint64_t pid_namespace = 0;  // inode; 0: may not be read
  int parent = 0;              // as seen from here
  bool zombie = false;
};

// Nothing if there is no such process.
std::optional<Process> LookUp(int pid);

// The program that a `heapflare run` of this number runs; other numbers as they are.
int BehindRun(int pid);

// Whether the process is the one that wrote the box with this header.
bool Wrote(const Process& process, const box::Header& header);

enum class Life {
  kAlive,
  kExited,  // closed its box by itself
  kDead,
  // Not visible from here (another PID namespace), and no sign of life for a while.
  kSilent,
};

Life LifeOf(const box::Header& header);
std::string_view Name(Life life);

// The block of NAME=value entries, each ending in a zero byte; only the owner and root may read it.
absl::StatusOr<std::string> ReadEnvironment(int pid);
// Value of a variable in such a block; empty if it is not there.
std::string Variable(std::string_view environment, std::string_view name);

// All of the text as a process number.
std::optional<int> ParsePid(std::string_view text);

// "/proc/PID" and what follows.
std::string ProcPath(int pid, std::string_view file);

// Every process number under /proc.
std::vector<int> AllPids();

}  // namespace heapflare::target
