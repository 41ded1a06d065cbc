// Suppressions of leaks from a file in LeakSanitizer's syntax, and what each was good for.
// base/suppression.h has the syntax and the matching.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace heapflare::leakcheck {

struct Suppression {
  std::string pattern;
  int line = 0;
  uint64_t objects = 0;  // what it suppressed
  uint64_t bytes = 0;
};

class Suppressions {
 public:
  absl::Status Read(const std::string& path);
  void Parse(std::string_view text);
  // The first that matches; nullptr.
  Suppression* Find(std::string_view name);

  const std::vector<Suppression>& all() const { return all_; }

 private:
  std::vector<Suppression> all_;
};

}  // namespace heapflare::leakcheck
