// Adds function names to a profile, outside the profiled process: from the ELF files that its
// mappings name, and only if the build id is the same. Names are those of the symbol table,
// demangled, with the mangled one beside; file and line from DWARF where there is some. Inline
// frames are not told apart yet: what is inlined counts for the function around it.
#pragma once

#include "lib/profile/profile.pb.h"

namespace heapflare::symbolize {

struct Result {
  int named = 0;    // locations that got a function from a file
  int unnamed = 0;  // that got "module!0xoffset" instead
};

// Locations that have lines already keep them.
Result Symbolize(profile::Profile* profile);

}  // namespace heapflare::symbolize
