// Answers requests of other processes through the control file, see lib/box/control.h. On the
// recorder's thread.
#pragma once

namespace heapflare::recorder {

// Opens the control file once there is one. Called before the recorder's thread follows the service
// to another user, who could not.
//
// The descriptor is kept: it is in a table that the service cannot reach (thread.h).
void OpenControlFile();

// Looks whether there is a new request, and serves it: one pread.
void ServeControlFile();

}  // namespace heapflare::recorder
