// HEAPFLARE_SIGNAL: a signal that asks for a dump.
#pragma once

namespace heapflare::recorder {

// Installs a handler for `signal` (0: none), unless the service has set one or ignores the signal;
// then it says so. A service that sets its own later replaces ours.
void InstallSignalTrigger(int signal);

// On the recorder's thread: asks for the dump if the signal came.
void PostSignalledDump();

}  // namespace heapflare::recorder
