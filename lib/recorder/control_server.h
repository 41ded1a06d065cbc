// Answers requests of other processes through the control file, see lib/box/control.h. On the
// recorder's thread.
#pragma once

namespace heapflare::recorder {

// Looks whether there is a new request, and serves it: one pread on a file opened for it.
void ServeControlFile();

}  // namespace heapflare::recorder
