// heapflare run
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <map>

#include "absl/strings/str_format.h"
#include "lib/doctor/allocator.h"
#include "lib/doctor/environment.h"
#include "lib/doctor/finding.h"
#include "lib/doctor/program.h"
#include "lib/target/files.h"
#include "tools/heapflare/command.h"
#include "tools/heapflare/launch.h"
#include "tools/heapflare/settings_options.h"

extern "C" char** environ;

namespace heapflare::tool {
namespace {

// Variables by name; what is set here replaces what the environment has.
using Variables = std::map<std::string, std::string>;

// What the recorder would say of the value, in terms of the option; empty if it is right.
std::string Problem(const SettingOption& setting, const std::string& value) {
  std::string entry = absl::StrFormat("%s=%s", setting.variable, value);
  entry.push_back('\0');
  const std::vector<std::string> problems = doctor::SettingProblems(entry);
  if (problems.empty()) return "";
  std::string problem = problems[0];
  // The recorder goes on with its default; the command does not.
  if (const size_t using_default = problem.rfind("; using "); using_default != problem.npos) {
    problem.resize(using_default);
  }
  return absl::StrFormat("%s%s", setting.option, problem.substr(strlen(setting.variable)));
}

bool IsPathOption(const SettingOption& setting) {
  return setting.value != nullptr &&
         (strcmp(setting.value, "DIR") == 0 || strcmp(setting.value, "FILE") == 0);
}

std::string Absolute(const std::string& path) {
  if (path.starts_with("/")) return path;
  char* here = getcwd(nullptr, 0);
  std::string absolute = here == nullptr ? path : absl::StrFormat("%s/%s", here, path);
  free(here);
  return absolute;
}

Arguments EnvironmentWith(const Variables& variables) {
  Arguments entries;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (!variables.contains(std::string(text.substr(0, text.find('=')))))
      entries.emplace_back(text);
  }
  for (const auto& [name, value] : variables) {
    entries.push_back(absl::StrFormat("%s=%s", name, value));
  }
  return entries;
}

// Ours first, so that its hooks are the ones that are called; then the allocator that they call;
// then what was there.
std::string Preload(const std::string& library, const std::string& allocator) {
  std::string list = library;
  if (!allocator.empty()) list += (list.empty() ? "" : ":") + allocator;
  const char* before = getenv("LD_PRELOAD");
  if (before != nullptr && *before != 0) list += ":" + std::string(before);
  return list;
}

// The library to preload; empty, after saying why, if there is none. The program runs all the same.
// `*breaks`: it would not with anything of glibc's preloaded.
std::string ChooseLibrary(const Parser& parser, const std::string& program, std::string_view search,
                          bool* breaks) {
  const auto library = doctor::FindLibrary();
  if (!library.ok()) {
    parser.Complain(
        absl::StrFormat("%s; running without profiling", std::string(library.status().message())));
    return "";
  }
  // The loader takes both for separators.
  if (library->find_first_of(": ") != std::string::npos) {
    parser.Complain(absl::StrFormat(
        "%s: cannot be preloaded from a path with a space or a colon; move it; running without "
        "profiling",
        *library));
    return "";
  }
  const doctor::Findings findings =
      doctor::CheckProgram(program, *library, search, doctor::Depth::kQuick);
  const doctor::Finding* failure = doctor::FirstFailure(findings);
  if (failure == nullptr) return *library;
  parser.Complain(
      absl::StrFormat("%s; %s; running it without profiling", failure->detail, failure->remedy));
  // It may start others that can be profiled, and its own loader ignores what it cannot use.
  *breaks = failure->breaks;
  return *library;
}

// In these cases the program's PID is expected to be ours: the first process of a container, a
// service that reports to systemd.
bool MustTakeOurPlace() { return getpid() == 1 || getenv("NOTIFY_SOCKET") != nullptr; }

struct Options {
  std::map<const SettingOption*, std::string> values;
  bool exact = false;
  bool in_place = false;
  std::string allocator;
};

void Declare(Parser* parser, Options* options) {
  CLI::App& app = parser->app();
  for (const SettingOption& setting : kSettingOptions) {
    const std::string help = absl::StrFormat("%s [%s]", setting.help, setting.variable);
    if (setting.value == nullptr) {
      app.add_flag_callback(
          setting.option, [options, &setting] { options->values[&setting] = "1"; }, help);
    } else {
      app.add_option_function<std::string>(
             setting.option,
             [options, &setting](const std::string& value) { options->values[&setting] = value; },
             help)
          ->type_name(setting.value);
    }
  }
  app.add_flag("--exact", options->exact, "Record every allocation: --interval=1");
  app.add_option("--allocator", options->allocator,
                 "Run it with jemalloc, tcmalloc, mimalloc, or the library at a path")
      ->type_name("NAME");
  app.add_flag(
      "--exec", options->in_place,
      "Let the program take heapflare's place and PID; so always as PID 1 and under systemd's "
      "notification");
  app.prefix_command();
  app.footer(
      "Usage: heapflare run [OPTIONS] -- PROGRAM [ARGS...]\n"
      "Exit status: the program's; 128 + N if signal N killed it; 126 not executable, 127 not "
      "found.\n"
      "Boxes and dumps of it: heapflare ls.");
}

// The variables that the options set; an error names the option.
absl::StatusOr<Variables> ToVariables(const Options& options) {
  Variables variables;
  for (const auto& [setting, given] : options.values) {
    const std::string value = IsPathOption(*setting) ? Absolute(given) : given;
    if (const std::string problem = Problem(*setting, value); !problem.empty()) {
      return absl::InvalidArgumentError(problem);
    }
    variables[setting->variable] = value;
  }
  if (options.exact) variables["HEAPFLARE_SAMPLE_INTERVAL"] = "1";
  // Who names the leaks' functions.
  if (variables.contains("HEAPFLARE_LEAK_CHECK")) {
    const std::string self = target::ReadLink("/proc/self/exe");
    if (!self.empty()) variables["HEAPFLARE_COMMAND"] = self;
  }
  return variables;
}

}  // namespace

int RunRun(const Arguments& arguments) {
  Parser parser("run");
  Options options;
  Declare(&parser, &options);
  Arguments before = arguments;
  std::optional<Arguments> words = TakeAfterDashes(&before);
  if (const auto code = parser.Parse(before)) return *code;
  const Arguments rest = parser.app().remaining();
  if (!rest.empty() && (words || rest[0].starts_with("-"))) {
    return parser.Misused(absl::StrFormat(
        "%s '%s'; see: heapflare run --help",
        rest[0].starts_with("-") ? "no such option" : "unexpected argument", rest[0]));
  }
  if (!words) words = rest;
  if (words->empty())
    return parser.Misused("no program given; usage: heapflare run [OPTIONS] -- PROGRAM");

  auto variables = ToVariables(options);
  if (!variables.ok()) return parser.Fail(variables.status());
  std::string allocator;
  if (!options.allocator.empty()) {
    const auto found = doctor::FindAllocator(options.allocator);
    if (!found.ok()) {
      return parser.Misused("--allocator " + std::string(found.status().message()));
    }
    allocator = *found;
  }
  const char* path = getenv("PATH");
  const std::string search = path == nullptr ? "/usr/bin:/bin" : path;
  const auto program = doctor::FindProgram((*words)[0], search);
  if (!program.ok()) {
    parser.Fail(program.status());
    return absl::IsNotFound(program.status()) ? kNotFound : kNotRunnable;
  }
  bool breaks = false;
  const std::string library = ChooseLibrary(parser, *program, search, &breaks);
  const std::string preload = Preload(library, allocator);
  if (!breaks && !preload.empty()) (*variables)["LD_PRELOAD"] = preload;

  int error = 0;
  const Stand stand = options.in_place || MustTakeOurPlace() ? Stand::kAside : Stand::kBeside;
  const int status = Launch({*program, *words, EnvironmentWith(*variables)}, stand, &error);
  if (error == 0) return status;
  parser.Complain(absl::StrFormat("%s: cannot be run: %s", *program, strerror(error)));
  return error == ENOENT ? kNotFound : kNotRunnable;
}

}  // namespace heapflare::tool
