// The suspects' stacks as a profile: for viewers, and for naming the functions in them.
//
// Sample types leaked_objects/count and leaked_space/bytes: what the suspect holds. One sample per
// suspect and kind of evidence, which the label `evidence` tells: "growth" or "unreachable"; a stack
// with both has two samples, so sum over one label, never over both. Growing ones come first, in
// their order, then the unreachable ones.
#pragma once

#include "absl/status/statusor.h"
#include "lib/leak/findings.h"
#include "lib/profile/profile.pb.h"
#include "lib/target/box_file.h"
#include "lib/target/process.h"

namespace heapflare::leak {

// Without function names yet: symbolize.h adds them.
absl::StatusOr<profile::Profile> MakeProfile(const target::BoxFile& box, target::Life life,
                                             const Findings& findings);

}  // namespace heapflare::leak
