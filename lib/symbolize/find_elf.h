// Finds the ELF file of a mapped segment by its build id, here or in the container of a living
// process.
//
// In this order: the file that the mapping names, in the root directory of the process and in ours;
// the file as the process has it mapped, which may have been deleted since; our own vdso; what
// /usr/lib/debug/.build-id has; what debuginfod has, if DEBUGINFOD_URLS is set and libdebuginfod is
// installed. The last two may be files of debug information alone. Each is opened and its build id
// compared before it is believed.
#pragma once

#include <functional>
#include <string>

#include "lib/symbolize/module_symbols.h"
#include "lib/target/files.h"

namespace heapflare::symbolize {

// Calls `use` with each candidate, until it returns true: an open file that `path` names, with the
// mapping's build id. False: none was taken.
using UseElf = std::function<bool(target::Descriptor file, const std::string& path)>;
bool FindElf(const Mapped& mapped, const UseElf& use);

// Where the segment would have to lie for the file's addresses to be those at run time: what is
// added to the file's addresses. False: the file has no such segment.
bool FindBias(int file, const Mapped& mapped, uint64_t* bias);

// Directories in which debug information is looked for, as libdwfl wants them.
std::string DebugPath(const Mapped& mapped);

}  // namespace heapflare::symbolize
