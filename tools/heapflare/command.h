// What the subcommands share: how they are listed, parse their arguments, and fail.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace heapflare::tool {

using Arguments = std::vector<std::string>;

// Exit codes that scripts rely on.
enum ExitCode : int {
  kDone = 0,
  kBadNews = 1,  // the question's answer
  kUsage = 2,
  kBadTarget = 3,  // missing, unreadable, not a box, damaged
  kNotRunnable = 126,
  kNotFound = 127,
};

struct Command {
  const char* name;
  const char* summary;
  // Gets what follows the name; returns the exit code.
  int (*run)(const Arguments& arguments);
};

int RunRun(const Arguments& arguments);
int RunLs(const Arguments& arguments);
int RunLeaks(const Arguments& arguments);
int RunDump(const Arguments& arguments);
int RunSnapshot(const Arguments& arguments);
int RunSymbolize(const Arguments& arguments);
int RunDoctor(const Arguments& arguments);
int RunLeakReport(const Arguments& arguments);

inline constexpr Command kCommands[] = {
    {"run", "Run a program with its heap profiled", RunRun},
    {"ls", "List the boxes: which processes are or were profiled", RunLs},
    {"dump", "Write a profile of what a box holds", RunDump},
    {"leaks", "Name the code that leaks, with what speaks for it", RunLeaks},
    {"snapshot", "Ask a running process for a dump of its own", RunSnapshot},
    {"symbolize", "Add function names to a profile", RunSymbolize},
    {"doctor", "Tell whether profiling would work here, and why not", RunDoctor},
    // Not for people: the recorder runs it.
    {"leak-report", "", RunLeakReport},
};

// A parser for `command`, with the heading of its help.
class Parser {
 public:
  explicit Parser(const char* command);

  CLI::App& app() { return app_; }
  // Nothing if the command is to go on; else the exit code, after help or a line on stderr.
  std::optional<int> Parse(const Arguments& arguments);
  // Says "heapflare COMMAND: message" in one line on stderr.
  void Complain(std::string_view message) const;
  // The same for a status; returns the exit code that belongs to it.
  int Fail(const absl::Status& status) const;
  int Misused(std::string_view message) const;

 private:
  const char* command_;
  CLI::App app_;
};

// Prints results. Returns `code`, or a failure if stdout did not take them.
int Finish(const std::string& output, int code);

// Splits off what follows the first "--"; nothing if there is none.
std::optional<Arguments> TakeAfterDashes(Arguments* arguments);

}  // namespace heapflare::tool
