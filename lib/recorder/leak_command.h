// The heapflare command, as the recorder runs it at exit: it has the symbols that a verdict needs.
//
// It is a child that neither SIGCHLD nor wait(2) shows to the program, with the program's environment
// less what would have it profiled in its turn. No allocation; one user at a time.
#pragma once

#include "lib/base/text.h"

namespace heapflare::recorder {

// HEAPFLARE_COMMAND, else beside the library, as it is installed, built, or put into a container.
// False: there is none that can be run.
bool FindCommand(base::Path* command);

// Runs `command leak-report` with the descriptor `input` as its standard input. Its exit code;
// negative: it could not be run, or did not end by itself within a minute.
int RunCommand(const char* command, int input);

}  // namespace heapflare::recorder
