// Starts a program and stands in for it: passes signals on, ends with its exit status.
#pragma once

#include <string>

#include "tools/heapflare/command.h"

namespace heapflare::tool {

enum class Stand {
  // As its parent. Exit status 128 + signal if a signal killed it; if we are killed, it is killed
  // too.
  kBeside,
  // The program takes our place, PID included.
  kAside,
};

struct Program {
  std::string path;
  Arguments words;  // as main gets them
  Arguments environment;
};

// Does not return for kAside, unless the program cannot be run. Returns the exit status; if it
// cannot be run, an errno value is in `error`, else 0.
int Launch(const Program& program, Stand stand, int* error);

}  // namespace heapflare::tool
