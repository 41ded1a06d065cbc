// The report of a leak check: what leaked, by stack, the largest first.
#pragma once

#include <string>

#include "lib/leakcheck/leak_list.h"
#include "lib/leakcheck/suppressions.h"

namespace heapflare::leakcheck {

struct Report {
  bool leaks = false;  // that no suppression covers
  std::string text;    // for stderr
};

// Takes what is suppressed out of the list's profile, which has symbols.
Report MakeReport(LeakList* list, Suppressions* suppressions);

}  // namespace heapflare::leakcheck
