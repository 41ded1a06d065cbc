// Tells of the leaks that were found.
//
// Names of functions need the symbols of the program's files, and this is no place to read them: so
// the `heapflare` command does, which lies beside the library (or HEAPFLARE_COMMAND names it). It gets
// a list (kListHead) on its standard input, prints the report to our stderr, writes a profile, applies
// the suppressions, and its exit code is the verdict. Where there is no command, or it fails, the
// report is ours: addresses in modules, names of exported symbols; suppressions match these only.
//
// Runs on a thread of the program, at exit or when the program asks. Waits for the command, a minute
// at most. The command is no child that wait(2) or SIGCHLD would show to the program.
#pragma once

#include "lib/recorder/leak_search.h"

namespace heapflare::recorder {

enum class Verdict { kClean, kLeaks };

// `result` has leaks.
Verdict ReportLeaks(const LeakResult& result);

}  // namespace heapflare::recorder
