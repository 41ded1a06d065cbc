// One line on stderr: how the recorder speaks to people. Each starts with "heapflare: ".
#pragma once

#include <string_view>

namespace heapflare::base {

// Writes "heapflare: MESSAGE\n" to descriptor 2 in one write, so that lines of threads do not mix;
// cut at 1 KiB. The line can neither stop nor kill the service: SIGPIPE (stderr is a closed pipe)
// and SIGXFSZ (stderr is a file at RLIMIT_FSIZE) that it raises are taken back, and a full
// non-blocking pipe drops it. Async-signal-safe.
void Say(std::string_view message);

}  // namespace heapflare::base
