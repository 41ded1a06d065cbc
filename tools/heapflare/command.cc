#include "tools/heapflare/command.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>

#include "absl/strings/str_format.h"
#include "lib/base/syscall.h"
#include "lib/target/human.h"

namespace heapflare::tool {
namespace {

void ToStderr(const std::string& line) { base::WriteAll(STDERR_FILENO, line.data(), line.size()); }

const char* SummaryOf(const char* name) {
  const auto* found =
      std::find_if(std::begin(kCommands), std::end(kCommands),
                   [name](const Command& command) { return strcmp(command.name, name) == 0; });
  return found == std::end(kCommands) ? "" : found->summary;
}

}  // namespace

Parser::Parser(const char* command)
    : command_(command), app_(SummaryOf(command), std::string("heapflare ") + command) {
  app_.set_help_flag("-h,--help", "Print this help");
}

std::optional<int> Parser::Parse(const Arguments& arguments) {
  // CLI11 takes them from the back.
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  try {
    app_.parse(std::move(reversed));
    return std::nullopt;
  } catch (const CLI::CallForHelp&) {
    return Finish(app_.help(), kDone);
  } catch (const CLI::ExtrasError&) {
    const std::vector<std::string> extras = app_.remaining();
    const std::string first = extras.empty() ? "" : extras.front();
    return Misused(absl::StrFormat(
        "%s '%s'; see: heapflare %s --help",
        first.starts_with("-") ? "no such option" : "unexpected argument", first, command_));
  } catch (const CLI::ParseError& error) {
    return Misused(absl::StrFormat("%s; see: heapflare %s --help", error.what(), command_));
  }
}

void Parser::Complain(std::string_view message) const {
  ToStderr(
      absl::StrFormat("heapflare %s: %s\n", command_, target::Printable(std::string(message))));
}

int Parser::Fail(const absl::Status& status) const {
  const std::string message(status.message());
  Complain(message);
  return absl::IsInvalidArgument(status) ? kUsage : kBadTarget;
}

int Parser::Misused(std::string_view message) const {
  Complain(message);
  return kUsage;
}

int Finish(const std::string& output, int code) {
  const int error = base::WriteAll(STDOUT_FILENO, output.data(), output.size());
  if (error == 0) return code;
  ToStderr(absl::StrFormat("heapflare: standard output cannot be written: %s\n", strerror(-error)));
  return kBadTarget;
}

std::optional<Arguments> TakeAfterDashes(Arguments* arguments) {
  const auto dashes = std::find(arguments->begin(), arguments->end(), "--");
  if (dashes == arguments->end()) return std::nullopt;
  Arguments rest(dashes + 1, arguments->end());
  arguments->erase(dashes, arguments->end());
  return rest;
}

}  // namespace heapflare::tool
