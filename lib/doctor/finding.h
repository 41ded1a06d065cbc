// What the doctor finds, one line each.
#pragma once

#include <string>
#include <vector>

namespace heapflare::doctor {

enum class Level {
  kOk,
  kWarn,  // works, but not as well as it could
  kFail,  // would not work
};

struct Finding {
  Level level = Level::kOk;
  std::string what;     // "program", "limit": a word or two
  std::string detail;   // what is the case
  std::string remedy;   // what to do about it; empty if there is nothing to do
  bool breaks = false;  // preloading would keep the program from starting
};

using Findings = std::vector<Finding>;

// "ok", "warn", "FAIL".
const char* Name(Level level);

// The first one with kFail; nullptr: there is none.
const Finding* FirstFailure(const Findings& findings);

void Append(Findings more, Findings* findings);

// Aligned lines: "ok    limit    256 MiB (cgroup v1 ...)", with " → remedy" where there is one.
std::string ToText(const Findings& findings);

}  // namespace heapflare::doctor
