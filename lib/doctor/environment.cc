#include "lib/doctor/environment.h"

#include <string.h>
#include <unistd.h>

#include <memory>

#include "absl/strings/str_format.h"
#include "lib/cgroup/controller.h"
#include "lib/cgroup/node.h"
#include "lib/cgroup/notifiers.h"
#include "lib/recorder/settings.h"
#include "lib/target/human.h"

extern "C" char** environ;

namespace heapflare::doctor {
namespace {

using cgroup::MemoryController;
using target::HumanSize;

// The recorder's callback is a plain function.
thread_local std::vector<std::string>* problems = nullptr;

void Collect(std::string_view line) { problems->emplace_back(line); }

recorder::Settings Parse(std::string_view environment, std::vector<std::string>* found) {
  recorder::Settings settings;
  problems = found;
  recorder::ParseSettings(environment, &settings, Collect);
  problems = nullptr;
  return settings;
}

std::string LevelName(const MemoryController& controller, int level) {
  const char* version = controller.version() == cgroup::Version::kV1 ? "cgroup v1" : "cgroup v2";
  switch (level) {
    case cgroup::kNodeLevel:
      return "the machine's memory";
    case cgroup::kHiddenLevel:
      return absl::StrFormat("%s, a level that cannot be seen from here", version);
    default:
      return absl::StrFormat("%s %s", version, controller.directory(level));
  }
}

void AddNotifiers(const MemoryController& controller, const cgroup::Roots& roots,
                  Findings* findings) {
  const cgroup::Notifiers all = cgroup::ProbeNotifiers(controller, roots);
  std::string usable;
  std::string refused;
  for (const cgroup::Notifier& notifier :
       {all.threshold, all.events, all.cgroup_pressure, all.node_pressure}) {
    if (notifier.error == -EOPNOTSUPP) continue;
    std::string& list = notifier.usable ? usable : refused;
    if (!list.empty()) list += ", ";
    list += notifier.name;
    if (!notifier.usable) absl::StrAppendFormat(&list, " (%s)", strerror(-notifier.error));
  }
  std::string detail = usable.empty() ? "none usable" : "usable: " + usable;
  if (!refused.empty()) detail += "; not: " + refused;
  // They make it faster where only the page cache or others grow; allocations are watched without.
  findings->push_back({Level::kOk, "notifications", detail, ""});
}

}  // namespace

std::vector<std::string> SettingProblems(std::string_view environment) {
  std::vector<std::string> found;
  Parse(environment, &found);
  return found;
}

std::string OwnEnvironment() {
  std::string block;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    block.append(*entry).push_back('\0');
  }
  return block;
}

Findings CheckSettings(std::string_view environment) {
  Findings findings;
  for (const std::string& problem : SettingProblems(environment)) {
    findings.push_back({Level::kWarn, "settings", problem, "correct or unset it"});
  }
  if (findings.empty()) findings.push_back({Level::kOk, "settings", "all understood", ""});
  return findings;
}

Findings CheckLimit(const View& view, std::string_view environment) {
  Findings findings;
  std::vector<std::string> ignored;
  const recorder::Settings settings = Parse(environment, &ignored);
  const cgroup::Roots roots = {.proc_self = view.proc.c_str(), .prefix = view.root.c_str()};
  // 10 KiB with its paths; not for a small stack.
  const auto controller = std::make_unique<MemoryController>();
  controller->Find(roots);
  const cgroup::Limit limit = controller->ReadLimit();
  std::string why = controller->reason();
  if (controller->error() != 0) why += absl::StrFormat(" (%s)", strerror(-controller->error()));

  if (settings.limit != 0) {
    findings.push_back({Level::kOk, "limit", HumanSize(settings.limit) + " (HEAPFLARE_LIMIT)", ""});
  } else if (limit.source == cgroup::LimitSource::kNone) {
    findings.push_back({Level::kWarn, "limit", "none found: " + why,
                        "set HEAPFLARE_LIMIT, or give HEAPFLARE_THRESHOLDS as sizes"});
  } else if (limit.source == cgroup::LimitSource::kNode) {
    findings.push_back(
        {Level::kWarn, "limit",
         absl::StrFormat("%s, the machine's memory; no cgroup limits this process%s",
                         HumanSize(limit.lowest.bytes), why.empty() ? "" : ": " + why),
         "set HEAPFLARE_LIMIT if something else kills it"});
  } else {
    std::string detail = absl::StrFormat("%s (%s)", HumanSize(limit.lowest.bytes),
                                         LevelName(*controller, limit.lowest.level));
    if (limit.nearest.level != limit.lowest.level) {
      absl::StrAppendFormat(&detail, "; nearest to full: %s (%s)", HumanSize(limit.nearest.bytes),
                            LevelName(*controller, limit.nearest.level));
    }
    if (limit.high.bytes < limit.lowest.bytes) {
      absl::StrAppendFormat(&detail, "; slowed down from %s on (memory.high)",
                            HumanSize(limit.high.bytes));
    }
    if (limit.error != 0) {
      absl::StrAppendFormat(&detail, "; not every level can be read (%s)", strerror(-limit.error));
    }
    findings.push_back({Level::kOk, "limit", detail, ""});
  }
  uint64_t usage = 0;
  const int error =
      controller->version() == cgroup::Version::kNone ? -ENOENT : controller->ReadUsage(0, &usage);
  if (error == 0) {
    findings.push_back({Level::kOk, "charge", HumanSize(usage) + " now", ""});
  } else if (controller->version() != cgroup::Version::kNone) {
    findings.push_back(
        {Level::kWarn, "charge",
         absl::StrFormat("%s: no usage to be read (%s)", controller->directory(), strerror(-error)),
         "the process's own memory is watched instead; set HEAPFLARE_METRIC=rss"});
  }
  AddNotifiers(*controller, roots, &findings);
  return findings;
}

}  // namespace heapflare::doctor
