// How it stands with a running process: is it being profiled, and if not, why.
#pragma once

#include "lib/doctor/finding.h"

namespace heapflare::doctor {

Findings CheckProcess(int pid);

}  // namespace heapflare::doctor
