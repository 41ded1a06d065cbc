// Who this process is, from /proc: what names its files and tells later whether it still lives.
#pragma once

#include <cstdint>

#include "lib/base/text.h"
#include "lib/box/format.h"

namespace heapflare::recorder {

struct Identity {
  base::Text<64>
      program;  // basename of the executable; characters that are awkward in a file name are '_'
  base::Text<64> invoked;      // basename of argv[0]
  uint64_t start_ticks = 0;    // /proc/PID/stat, field 22
  uint64_t start_utc = 0;      // ns; the present time without /proc
  uint64_t pid_namespace = 0;  // inode
};

void ReadIdentity(Identity* identity);

// Copies what the header keeps of it, and of the machine.
void FillIdentity(const Identity& identity, box::Header* header);

}  // namespace heapflare::recorder
