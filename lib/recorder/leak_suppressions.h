// Suppressions of leaks (base/suppression.h has their syntax), for a report without the command: what a
// file says, 64 KiB of it. Large; see who keeps it.
#pragma once

#include <cstddef>
#include <string_view>

namespace heapflare::recorder {

class LeakSuppressions {
 public:
  // False: it cannot be read.
  bool Read(const char* path);
  bool Match(std::string_view name) const;

 private:
  char text_[64 << 10];
  size_t bytes_ = 0;
};

}  // namespace heapflare::recorder
