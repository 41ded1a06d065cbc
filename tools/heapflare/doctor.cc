// heapflare doctor
#include <stdlib.h>
#include <unistd.h>

#include "absl/strings/str_format.h"
#include "lib/doctor/environment.h"
#include "lib/doctor/finding.h"
#include "lib/doctor/process.h"
#include "lib/doctor/program.h"
#include "lib/profile/json.h"
#include "lib/target/process.h"
#include "tools/heapflare/command.h"

namespace heapflare::tool {
namespace {

using doctor::Findings;
using doctor::Level;

// Of the program to be started, if one was named, and of this place.
Findings CheckHere(const Arguments& program) {
  Findings findings;
  const char* search = getenv("PATH");
  const auto library = doctor::FindLibrary();
  if (!program.empty()) {
    const auto path = doctor::FindProgram(program[0], search == nullptr ? "" : search);
    if (path.ok()) {
      doctor::Append(
          doctor::CheckProgram(*path, library.ok() ? *library : "", search == nullptr ? "" : search,
                               doctor::Depth::kThorough),
          &findings);
    } else {
      findings.push_back({Level::kFail, "program", std::string(path.status().message()), ""});
    }
  }
  if (library.ok()) {
    findings.push_back({Level::kOk, "library", *library, ""});
  } else {
    findings.push_back({Level::kFail, "library", std::string(library.status().message()), ""});
  }
  const std::string environment = doctor::OwnEnvironment();
  doctor::View view;
  view.uid = geteuid();
  doctor::Append(doctor::CheckLimit(view, environment), &findings);
  doctor::Append(doctor::CheckDirectories(view, environment), &findings);
  doctor::Append(doctor::CheckSettings(environment), &findings);
  return findings;
}

std::string AsJson(const Findings& findings) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const doctor::Finding& finding : findings) {
    list.push_back({{"level", doctor::Name(finding.level)},
                    {"what", finding.what},
                    {"detail", finding.detail},
                    {"remedy", finding.remedy}});
  }
  const bool works = doctor::FirstFailure(findings) == nullptr;
  return profile::ToText({{"works", works}, {"findings", list}}, 2) + "\n";
}

}  // namespace

int RunDoctor(const Arguments& arguments) {
  Parser parser("doctor");
  Arguments before = arguments;
  Arguments program = TakeAfterDashes(&before).value_or(Arguments());
  std::string subject;
  bool json = false;
  parser.app().add_option("PID", subject, "A running process: is it profiled, and if not, why");
  parser.app().add_flag("--json", json, "Print JSON");
  parser.app().footer(
      "heapflare doctor -- PROGRAM [ARGS...] looks at a program before it is started. Without PID "
      "or\n"
      "PROGRAM only the place is looked at: limit, directories, settings. Exit code 1: it would "
      "not work.");
  if (const auto code = parser.Parse(before)) return *code;
  if (!subject.empty() && !program.empty()) {
    return parser.Misused("a PID or a program, not both");
  }
  const auto pid = target::ParsePid(subject);
  if (!subject.empty() && !pid) program = {subject};

  const Findings findings = pid ? doctor::CheckProcess(*pid) : CheckHere(program);
  const bool works = doctor::FirstFailure(findings) == nullptr;
  return Finish(json ? AsJson(findings) : doctor::ToText(findings), works ? kDone : kBadNews);
}

}  // namespace heapflare::tool
