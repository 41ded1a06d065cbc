// Asks a recorder for passes of the search for unreachable blocks, and reports each.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "lib/box/control.h"
#include "lib/box/format.h"

namespace heapflare::control {

struct ReachOptions {
  uint32_t passes = box::kReachPasses;   // in a row, at least 1 and at most box::kMostPasses
  int64_t spacing_ns = 60'000'000'000;   // from the end of one to the start of the next
  uint32_t flags = 0;                    // box::ReachFlags
  int64_t timeout_ns = 900'000'000'000;  // for one pass
};

// Called after each pass: its number from 1, what the box says of it, and, if it failed, why.
using ReachReport =
    std::function<void(uint32_t number, const box::Reach& pass, const std::string& problem)>;

// Makes the passes; the box then holds what they found. Stops at the first that fails, with the
// reason. `pid` as for Ask.
absl::Status FindUnreachable(const std::string& box_path, int pid, const ReachOptions& options,
                             const ReachReport& report);

// "paused 1.9 ms (fork 1.2 ms), 12 threads; 1.2 GiB searched in 0.4 s, 3.1 MiB extra memory; 17 of
// 2031 samples without a reference": one pass, on one line.
std::string DescribePass(const box::Reach& pass);
// What the pass's mode cannot see, or "" if it saw all that can be seen.
std::string DescribeBlindness(const box::Reach& pass);

}  // namespace heapflare::control
