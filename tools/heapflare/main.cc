// heapflare COMMAND ...: finds the command in the table and hands over.
#include <unistd.h>

#include <exception>
#include <string_view>

#include "absl/strings/str_format.h"
#include "lib/base/syscall.h"
#include "lib/recorder/version.h"
#include "lib/target/human.h"
#include "tools/heapflare/command.h"

namespace heapflare::tool {
namespace {

std::string Help() {
  std::string text =
      "Tells which code holds the memory of a C++ service, even after the kernel killed it.\n"
      "Usage: heapflare COMMAND [OPTIONS]\n\nCommands:\n";
  for (const Command& command : kCommands) {
    if (*command.summary == '\0') continue;
    absl::StrAppendFormat(&text, "  %-10s%s\n", command.name, command.summary);
  }
  return text +
         "\nheapflare COMMAND --help explains each. TARGET is a PID, a box, a profile, or a "
         "directory (then\n"
         "the newest box in it); without one, the newest box in HEAPFLARE_BOX_DIR.\n"
         "Exit codes: 0 done, 1 the answer is bad news, 2 usage, 3 target missing, unreadable or "
         "damaged.\n";
}

int Complain(const std::string& message) {
  const std::string line = "heapflare: " + target::Printable(message) + "\n";
  base::WriteAll(STDERR_FILENO, line.data(), line.size());
  return kUsage;
}

int Main(const Arguments& arguments) {
  if (arguments.empty()) return Complain("no command given; see: heapflare --help");
  const std::string& name = arguments[0];
  if (name == "--help" || name == "-h" || name == "help") return Finish(Help(), kDone);
  if (name == "--version") {
    return Finish(absl::StrFormat("heapflare %s\n", recorder::kVersion), kDone);
  }
  std::string known;
  for (const Command& command : kCommands) {
    if (name == command.name) return command.run({arguments.begin() + 1, arguments.end()});
    if (*command.summary == '\0') continue;
    known += (known.empty() ? "" : ", ") + std::string(command.name);
  }
  return Complain(absl::StrFormat("no such %s '%s'; commands are %s",
                                  name.starts_with("-") ? "option" : "command", name, known));
}

}  // namespace
}  // namespace heapflare::tool

int main(int argc, char** argv) {
  try {
    return heapflare::tool::Main({argv + (argc > 0 ? 1 : 0), argv + argc});
  } catch (const std::exception& error) {
    // Out of memory, most likely: what is read is bounded, but machines are small.
    heapflare::tool::Complain(error.what());
    return heapflare::tool::kBadTarget;
  }
}
