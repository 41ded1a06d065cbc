// One function at one program counter, as debug information tells it.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace heapflare::symbolize {

struct Frame {
  std::string system_name;  // as the linker knows it: mangled, if the language mangles
  std::string name;         // for people; empty: the system name, demangled
  std::string file;         // empty: not known
  int line = 0;             // 0: not known
  int start_line = 0;       // where the function is declared; 0: not known

  bool operator==(const Frame&) const = default;
};

// Of which nothing else is known.
inline Frame OnlyName(std::string system_name) {
  Frame frame;
  frame.system_name = std::move(system_name);
  return frame;
}

// What lies at one program counter: what was inlined first, each followed by what it is inlined
// into; the function that the linker knows comes last. Empty: nothing is known.
using Frames = std::vector<Frame>;

}  // namespace heapflare::symbolize
