#include "lib/doctor/process.h"

#include <sys/stat.h>
#include <time.h>

#include <cstring>

#include "absl/strings/str_format.h"
#include "lib/base/parse.h"
#include "lib/base/syscall.h"
#include "lib/box/totals.h"
#include "lib/doctor/environment.h"
#include "lib/doctor/program.h"
#include "lib/recorder/settings.h"
#include "lib/target/box_file.h"
#include "lib/target/files.h"
#include "lib/target/human.h"
#include "lib/target/process.h"
#include "lib/target/target.h"

namespace heapflare::doctor {
namespace {

using target::HumanSize;

// The path from which libheapflare.so is mapped; empty if it is not.
absl::StatusOr<std::string> MappedRecorder(int pid) {
  const auto maps = target::ReadWhole(target::ProcPath(pid, "/maps"), 64 << 20);
  if (!maps.ok()) return maps.status();
  std::string_view rest = *maps;
  for (std::string_view line; base::TakeUntil('\n', &rest, &line);) {
    const size_t slash = line.find('/');
    if (slash == std::string_view::npos) continue;
    const std::string_view path = line.substr(slash);
    if (path.find("/libheapflare.so") != std::string_view::npos) return std::string(path);
  }
  return std::string();
}

// Why a process does not have the recorder.
Findings WhyNotLoaded(int pid, const std::string& environment) {
  const std::string preload = target::Variable(environment, "LD_PRELOAD");
  if (preload.find("libheapflare") == std::string::npos) {
    return {{Level::kFail, "recorder", "not loaded: LD_PRELOAD does not name it",
             "start the program with: heapflare run -- PROGRAM"}};
  }
  Findings findings = {{Level::kFail, "recorder",
                        "not loaded, though LD_PRELOAD names it: " + preload,
                        "see the program's stderr for what the loader said"}};
  // The link leads to the file even where the name is of another mount namespace.
  Append(CheckProgram(target::ProcPath(pid, "/exe"), "", "", Depth::kThorough), &findings);
  return findings;
}

std::string Heartbeat(const box::Header& header) {
  const auto now = static_cast<uint64_t>(base::UtcNanoseconds());
  const uint64_t age =
      now > header.heartbeat_utc ? (now - header.heartbeat_utc) / 1'000'000'000 : 0;
  return target::HumanDuration(age) + " ago";
}

void DescribeLosses(const box::Header& header, Findings* findings) {
  const box::Losses& losses = header.losses;
  if (losses.samples + losses.missed_frees + losses.folded_stacks == 0) {
    findings->push_back({Level::kOk, "losses", "none", ""});
  } else {
    findings->push_back(
        {Level::kWarn, "losses",
         absl::StrFormat("%d samples, %d frees seen late, %d samples without a stack of their own",
                         losses.samples, losses.missed_frees, losses.folded_stacks),
         losses.samples + losses.folded_stacks > 0 ? "give it a larger HEAPFLARE_BOX_SIZE" : ""});
  }
}

void DescribeBox(const target::BoxFile& box, Findings* findings) {
  const box::Header& header = box.header();
  const target::Life life = target::LifeOf(header);
  const bool alive = life == target::Life::kAlive;
  findings->push_back({alive ? Level::kOk : Level::kFail, "box",
                       absl::StrFormat("%s, %s, last sign of life %s", box.path(),
                                       std::string(target::Name(life)), Heartbeat(header)),
                       ""});
  const auto age = static_cast<uint64_t>(base::UtcNanoseconds()) - header.heartbeat_utc;
  constexpr uint64_t kLate = 10'000'000'000;
  if (alive && header.heartbeat_utc != 0 && age < uint64_t{1} << 62 && age > kLate) {
    findings->push_back({Level::kWarn, "thread",
                         "the recorder's thread has been silent for a while",
                         "is the process stopped, or starved of CPU?"});
  }
  std::string interval = header.interval == 0   ? "off"
                         : header.interval == 1 ? "every allocation"
                                                : "one sample per " + HumanSize(header.interval);
  if (header.interval != header.configured_interval) {
    interval +=
        absl::StrFormat(" (configured: %s%s)", HumanSize(header.configured_interval),
                        header.losses.thinnings > 0 ? "; thinned, the box was filling up" : "");
  }
  findings->push_back(
      {header.interval == 0 ? Level::kWarn : Level::kOk, "sampling", interval,
       header.interval == 0 ? "switch it on: heapflare snapshot PID --set-interval=512KiB" : ""});
  findings->push_back({Level::kOk, "live heap",
                       absl::StrFormat("%s, %d samples live, %d dumps", HumanSize(box.live_bytes()),
                                       box::SumTallies(header).samples_live(), header.dumps),
                       ""});
  box::TimelinePoint point = {};
  if (box.LastPoint(&point) && point.limit != box::kUnknown && point.usage != box::kUnknown) {
    findings->push_back(
        {Level::kOk, "watching",
         absl::StrFormat("%s of %s charged", HumanSize(point.usage), HumanSize(point.limit)), ""});
  }
  DescribeLosses(header, findings);
}

}  // namespace

Findings CheckProcess(int pid) {
  pid = target::BehindRun(pid);
  const auto process = target::LookUp(pid);
  struct stat owner = {};
  if (!process || process->zombie || stat(target::ProcPath(pid, "").c_str(), &owner) != 0) {
    return {{Level::kFail, "process", absl::StrFormat("no process %d", pid),
             "its box, if it left one, is listed by: heapflare ls"}};
  }
  Findings findings;
  findings.push_back(
      {Level::kOk, "process",
       absl::StrFormat("%s (pid %d, user %d)",
                       target::Basename(target::ReadLink(target::ProcPath(pid, "/exe"))), pid,
                       owner.st_uid),
       ""});
  const auto recorder = MappedRecorder(pid);
  const auto environment = target::ReadEnvironment(pid);
  if (!recorder.ok() || !environment.ok()) {
    const absl::Status& status = recorder.ok() ? environment.status() : recorder.status();
    findings.push_back({Level::kFail, "process", std::string(status.message()),
                        absl::StrFormat("ask as user %d or as root", owner.st_uid)});
    return findings;
  }
  const auto found = target::FindBoxOf(pid);
  if (!recorder->empty()) {
    findings.push_back({Level::kOk, "recorder", *recorder, ""});
  } else if (found.ok()) {
    findings.push_back({Level::kOk, "recorder", "linked into the program", ""});
  } else {
    Append(WhyNotLoaded(pid, *environment), &findings);
  }
  if (found.ok()) {
    const auto box = target::BoxFile::Load(found->path, target::Parts::kTimeline);
    if (box.ok()) {
      DescribeBox(*box, &findings);
    } else {
      findings.push_back({Level::kFail, "box", std::string(box.status().message()), ""});
    }
  } else if (!recorder->empty()) {
    const std::string programs = target::Variable(*environment, "HEAPFLARE_PROGRAMS");
    const std::string why =
        programs.empty() ? "none found; its stderr says why if none could be made"
                         : absl::StrFormat("none found; HEAPFLARE_PROGRAMS is '%s'", programs);
    findings.push_back({Level::kFail, "box", why, "see the directories below"});
  }
  const View view = {.proc = target::ProcPath(pid, ""),
                     .root = target::ProcPath(pid, "/root"),
                     .uid = owner.st_uid};
  Append(CheckLimit(view, *environment), &findings);
  Append(CheckDirectories(view, *environment), &findings);
  Append(CheckSettings(*environment), &findings);
  return findings;
}

}  // namespace heapflare::doctor
