// Findings as people and as scripts read them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "lib/leak/findings.h"
#include "lib/profile/profile.pb.h"
#include "lib/target/box_file.h"
#include "lib/target/process.h"

namespace heapflare::leak {

struct Report {
  const target::BoxFile& box;
  target::Life life;
  const Findings& findings;
  // Of MakeProfile, symbolized: its samples are the suspects, in their order.
  const profile::Profile& named;
};

// One screen: the largest suspects, with what speaks for them, kind by kind; then what was watched and
// what could not be seen. `verbose`: all of them, whole stacks, and how the others were judged.
std::string AsText(const Report& report, bool verbose);

//   {"box": "...", "process": {...}, "watched_seconds": 600.1, "looks": 16,
//    "live_bytes": ..., "limit": null, "working_set": ...,
//    "growth": {"suspects": [{"function": "Cache::Insert", "bytes": ..., "bytes_error": ...,
//                             "objects": ..., "samples": ..., "share": 0.52,
//                             "slope_bytes_per_hour": ..., "slope_error": ...,
//                             "since": "2025-11-24T03:10:07Z", "since_seconds": 402.1,
//                             "grown_bytes": ..., "seconds_to_limit": null, "frames": [...]}],
//               "too_early": [...],                 as suspects, without frames
//               "smallest_slope_bytes_per_hour": ...,  what would have been told from chance
//               "judged": {"grows": 1, "steady": 30, ...}},
//    "unreachable": {"searched": true, "passes": 3, "mode": ..., "suspects": [{"function": ...,
//                    "bytes": ..., "indirect_bytes": ..., "passes": ..., "oldest_seconds": ...}],
//                    "suppressed_stacks": 0, "false_leaks": 0}}
//   `frames` are leaf first: {"function", "file", "line", "module"}.
nlohmann::ordered_json AsJson(const Report& report);

// The least slope, bytes a second, that would be a suspect by now; 0: any.
double SmallestSlope(const Report& report);

}  // namespace heapflare::leak
