// Asks debuginfod servers for a file by its build id.
#pragma once

#include <string>

#include "lib/target/files.h"

namespace heapflare::symbolize {

// Debug information, or the file itself, from the servers that DEBUGINFOD_URLS names, through
// libdebuginfod and its cache. An invalid descriptor: it is not set, the library is not installed,
// or no server has it. `path`: of the file in the cache. May take as long as DEBUGINFOD_TIMEOUT
// allows.
target::Descriptor FetchFromDebuginfod(const std::string& build_id, bool debug_info,
                                       std::string* path);

}  // namespace heapflare::symbolize
