// What a box says about leaks: the suspects, each kind of evidence apart.
//
// From the box alone, so of a living process as of a dead one. One pass over the samples and one over
// the stacks. Trusts the box no more than its reader does: numbers of a damaged one are wrong, and
// finite.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "lib/box/reader.h"
#include "lib/leak/growth.h"
#include "lib/leak/histories.h"

namespace heapflare::leak {

struct Options {
  uint64_t min_bytes = 0;       // suspects that hold less are left out
  std::optional<double> since;  // seconds ago: only what grew, or was born, since
};

struct GrowthSuspect {
  Holding holding;  // all that lives of the stack now
  Growth growth;
  double share = 0;                        // of the live heap
  std::optional<double> seconds_to_limit;  // if only this grows, at this slope
};

struct UnreachableSuspect {
  Holding holding;  // called unreachable; indirect ones included
  double indirect_bytes = 0;
  uint32_t fewest_passes = 0;  // in a row, in which each of the samples was unreachable
  double oldest = 0;           // seconds ago
};

struct Findings {
  // How much could be seen.
  double now = 0;      // seconds after the box was opened: its last sign of life
  uint32_t looks = 0;  // kept of those at the stacks' live bytes
  double live_bytes = 0;
  uint64_t limit = box::kUnknown;
  uint64_t working_set = box::kUnknown;

  std::vector<GrowthSuspect> growing;  // the most certain growth first
  std::vector<GrowthSuspect> early;    // grow as well, but not for long enough to tell
  uint64_t judged = 0;                 // stacks with live samples
  uint64_t by_verdict[static_cast<size_t>(Verdict::kCount)] = {};

  box::Reach reach = {};                        // of the last search
  std::vector<UnreachableSuspect> unreachable;  // the largest first
  uint64_t suppressed = 0;   // stacks not named, since the search was wrong about them before
  uint64_t false_leaks = 0;  // how often it was

  bool any() const { return !growing.empty() || !unreachable.empty(); }
};

Findings Find(const box::Reader& box, const Options& options);

}  // namespace heapflare::leak
