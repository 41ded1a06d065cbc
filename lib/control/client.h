// Asks the recorder of a running process for something, through the control file beside its box:
// the other end of lib/box/control.h.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/box/control.h"

namespace heapflare::control {

struct Request {
  box::ControlKind kind = box::ControlKind::kNone;
  uint64_t argument = 0;
};

// The control file of a box.
std::string ControlPath(const std::string& box_path);

// Waits for other clients and for the answer, both together at most `timeout_ns`. `pid` is the
// process as seen from here: when it ends meanwhile, nobody will answer; 0 if it is not known.
// Returns the answer's text. Errors: "PATH: what; remedy", DeadlineExceeded when time is up,
// Aborted when the process ended, Internal with the recorder's own reason.
absl::StatusOr<std::string> Ask(const std::string& box_path, int pid, const Request& request,
                                int64_t timeout_ns);

}  // namespace heapflare::control
