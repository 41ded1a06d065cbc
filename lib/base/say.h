// One line on stderr: how the recorder speaks to people. Each starts with "heapflare: ".
#pragma once

#include <string_view>

namespace heapflare::base {

// Notes what descriptor 2 is at the program's start. A service may close it, and the number then
// becomes one of its own files or connections: see Say.
void RememberStderr();

// Says that the calling thread has a table of descriptors of its own, without a descriptor 2; its
// lines go to the process's. Of one thread at a time.
void SayThroughProcess();

// Writes "heapflare: MESSAGE\n" to descriptor 2 in one write, so that lines of threads do not mix;
// cut at 1 KiB, control characters shown as '?'.
//
// The line can neither stop nor kill the service, nor get into its data. It is dropped where the
// write would wait (a full pipe that nobody reads), and where descriptor 2 is no longer what it was
// at the start, but for a terminal, a device or a log (a file that is appended to). Signals that it
// raises are taken back. Async-signal-safe.
void Say(std::string_view message);

}  // namespace heapflare::base
