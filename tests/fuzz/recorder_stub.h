// The recorder as far as the parts under test need one: its state, and what it was asked to do.
#pragma once

#include <cstdint>

namespace heapflare::fuzz {

struct Asked {
  int dumps = 0;
  int intervals = 0;
  uint64_t interval = 0;
};
extern Asked asked;

}  // namespace heapflare::fuzz
