// The options of `heapflare run` that set the recorder's variables, each listed once.
#pragma once

namespace heapflare::tool {

struct SettingOption {
  const char* option;
  const char* variable;
  const char* value;  // its name in the help; nullptr: a flag, which sets 1
  const char* help;
};

inline constexpr SettingOption kSettingOptions[] = {
    {"--interval", "HEAPFLARE_SAMPLE_INTERVAL", "SIZE",
     "Mean bytes between samples; 1 = every allocation, 0 = off (512KiB)"},
    {"--dir", "HEAPFLARE_DIR", "DIR", "Where dumps go (/tmp/heapflare-UID)"},
    {"--box-dir", "HEAPFLARE_BOX_DIR", "DIR",
     "Where the box lives, best on tmpfs (/dev/shm/heapflare-UID)"},
    {"--thresholds", "HEAPFLARE_THRESHOLDS", "LIST",
     "Memory use at which to dump: percents of the limit, or sizes (80%,90%,95%)"},
    {"--limit", "HEAPFLARE_LIMIT", "SIZE", "Memory limit to watch (what the cgroup says)"},
    {"--metric", "HEAPFLARE_METRIC", "NAME",
     "What is compared with the thresholds: working_set, usage or rss (working_set)"},
    {"--eta", "HEAPFLARE_ETA", "SECONDS",
     "Dump when the limit will be reached within this time; 0 = off (0)"},
    {"--signal", "HEAPFLARE_SIGNAL", "NAME", "Signal that asks for a dump: USR2, RTMIN+3 (none)"},
    {"--dump-at-exit", "HEAPFLARE_DUMP_AT_EXIT", nullptr, "Dump at normal exit"},
    {"--programs", "HEAPFLARE_PROGRAMS", "LIST",
     "Names of the programs that are profiled; others run untouched (all)"},
    {"--keep", "HEAPFLARE_KEEP", "N", "Dumps kept per process (10)"},
    {"--box-size", "HEAPFLARE_BOX_SIZE", "SIZE", "Budget of the box (16MiB)"},
    {"--box-mode", "HEAPFLARE_BOX_MODE", "MODE", "File mode of the box (0600)"},
    {"--max-stack", "HEAPFLARE_MAX_STACK", "N", "Frames kept per stack (64)"},
    {"--leak-check", "HEAPFLARE_LEAK_CHECK", nullptr,
     "Record every block, and report those that nothing leads to at the program's exit"},
    {"--leak-exit-code", "HEAPFLARE_LEAK_EXIT_CODE", "N",
     "Exit status of a program that leaked; 0 = its own (23)"},
    {"--leak-suppressions", "HEAPFLARE_LEAK_SUPPRESSIONS", "FILE",
     "Leaks that are not reported, in LeakSanitizer's syntax: leak:PATTERN (none)"},
    {"--verbose", "HEAPFLARE_VERBOSE", nullptr, "Say at start what is watched, and each dump"},
};

}  // namespace heapflare::tool
