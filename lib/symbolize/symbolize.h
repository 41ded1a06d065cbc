// Adds functions, files, lines and inlined functions to a profile, outside the profiled process.
//
// Only files with the mapping's own build id are believed (find_elf.h says where they are looked
// for). Names are demangled, with the mangled one beside. A location in no file that can be found
// gets "module!0xoffset", since viewers leave out locations without a line. Rules: the pprof
// format, profile.proto.
#pragma once

#include <string>

#include "lib/profile/profile.pb.h"

namespace heapflare::symbolize {

struct Options {
  // The process that the profile is of, if it lives in a PID namespace below ours; else 0.
  int pid = 0;
  // See symbol_cache.h; empty: none.
  std::string cache_directory;
};

struct Result {
  int named = 0;    // locations that got functions from a file
  int unnamed = 0;  // that got "module!0xoffset" instead
};

// Locations that have lines already keep them.
Result Symbolize(profile::Profile* profile, const Options& options = {});

}  // namespace heapflare::symbolize
