// The names that a just-in-time compiler wrote down for its code, in the format of perf:
// /tmp/perf-PID.map, a line "START SIZE NAME" per function, numbers in hexadecimal.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/strings/string_view.h"

namespace heapflare::symbolize {

class PerfMap {
 public:
  // Lines that are no such line are passed over; a later function replaces those that it overlaps,
  // as code is compiled anew.
  explicit PerfMap(absl::string_view text);
  // Of a living process, under its number in its own PID namespace; empty if there is none.
  static PerfMap Of(int pid);

  // Empty: not known.
  std::string Find(uint64_t address) const;

 private:
  struct Code {
    uint64_t limit;
    std::string name;
  };
  std::map<uint64_t, Code> code_;  // by start, not overlapping
};

}  // namespace heapflare::symbolize
