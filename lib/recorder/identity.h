// Who this process is, from /proc: what names its files and tells later whether it still lives.
#pragma once

#include <cstdint>

#include "lib/base/text.h"
#include "lib/box/format.h"

namespace heapflare::recorder {

struct Identity {
  // What names the files: what the program was started as (redis-server, though that is a link to
  // redis-check-rdb), of a script its interpreter. Characters that are awkward in a file name are
  // '_'.
  base::Text<64> program;
  base::Text<64> executable;   // basename of the executable file, written likewise
  base::Text<64> invoked;      // basename of argv[0]
  uint64_t start_ticks = 0;    // /proc/PID/stat, field 22
  uint64_t start_utc = 0;      // ns; the present time without /proc
  uint64_t pid_namespace = 0;  // inode
};

// The program's names are read only once: afterwards the service may have another directory, or
// have written over them.
void ReadIdentity(Identity* identity);

// True if this very process wrote the box, as another program before an exec. Without /proc that
// cannot be told, and it did not.
bool WrittenBy(const Identity& identity, const box::Header& header);

// Copies what the header keeps of it, and of the machine.
void FillIdentity(const Identity& identity, box::Header* header);

}  // namespace heapflare::recorder
