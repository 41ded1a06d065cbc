// heapflare snapshot
#include <sys/stat.h>

#include "absl/strings/str_format.h"
#include "lib/base/parse.h"
#include "lib/control/client.h"
#include "lib/profile/json.h"
#include "lib/target/box_file.h"
#include "lib/target/human.h"
#include "lib/target/process.h"
#include "lib/target/target.h"
#include "tools/heapflare/command.h"

namespace heapflare::tool {
namespace {

// The path as it is seen from here: a process in a container names its own.
std::string SeenFromHere(int pid, const std::string& path) {
  struct stat one = {};
  struct stat other = {};
  const std::string inside = target::ProcPath(pid, "/root" + path);
  const bool same = stat(path.c_str(), &one) == 0 && stat(inside.c_str(), &other) == 0 &&
                    one.st_dev == other.st_dev && one.st_ino == other.st_ino;
  return pid == 0 || same || stat(inside.c_str(), &other) != 0 ? path : inside;
}

}  // namespace

int RunSnapshot(const Arguments& arguments) {
  Parser parser("snapshot");
  std::string target_text;
  std::string interval_text;
  double timeout_seconds = 10;
  bool json = false;
  parser.app().add_option("PID", target_text, "The process, or its box")->required();
  parser.app()
      .add_option("--timeout", timeout_seconds, "Seconds to wait for it")
      ->default_str("10");
  parser.app().add_option("--set-interval", interval_text,
                          "Instead of a dump: record one allocation per SIZE bytes from now on; "
                          "1 = all, 0 = none");
  parser.app().add_flag("--json", json, "Print JSON");
  if (const auto code = parser.Parse(arguments)) return *code;
  // Written so that "not a number" is refused as well.
  if (!(timeout_seconds > 0 && timeout_seconds <= 86400)) {
    return parser.Misused("--timeout: not a number of seconds up to 86400");
  }
  control::Request request = {.kind = box::ControlKind::kDump, .argument = 0};
  if (!interval_text.empty()) {
    const auto interval = base::ParseSize(interval_text);
    constexpr uint64_t kLargest = uint64_t{1} << 40;
    if (!interval || *interval > kLargest) {
      return parser.Misused(absl::StrFormat(
          "--set-interval '%s': not a size up to 1 TiB (as 524288, 512KiB)", interval_text));
    }
    request = {.kind = box::ControlKind::kSetInterval, .argument = *interval};
  }

  const auto target = target::Resolve(target_text);
  if (!target.ok()) return parser.Fail(target.status());
  const auto header = target::ReadBoxHeader(target->path);
  if (!header.ok()) return parser.Fail(header.status());
  const target::Life life = target->pid != 0 ? target::Life::kAlive : target::LifeOf(*header);
  if (life == target::Life::kDead || life == target::Life::kExited) {
    return parser.Fail(absl::NotFoundError(absl::StrFormat(
        "%s: its process (pid %d) is dead; what it held is in the box: heapflare dump %s",
        target->path, header->pid, target->path)));
  }
  const auto answer =
      control::Ask(target->path, target->pid, request, static_cast<int64_t>(timeout_seconds * 1e9));
  if (!answer.ok()) return parser.Fail(answer.status());
  if (request.kind == box::ControlKind::kSetInterval) {
    if (json) {
      return Finish(
          profile::ToText({{"pid", header->pid}, {"sample_interval", request.argument}}, 2) + "\n",
          kDone);
    }
    parser.Complain(absl::StrFormat(
        "pid %d now records %s", header->pid,
        request.argument == 0   ? "nothing"
        : request.argument == 1 ? "every allocation"
                                : "one allocation per " + target::HumanSize(request.argument)));
    return kDone;
  }
  const std::string path = SeenFromHere(target->pid, *answer);
  if (json) {
    return Finish(profile::ToText({{"pid", header->pid}, {"path", path}}, 2) + "\n", kDone);
  }
  return Finish(path + "\n", kDone);
}

}  // namespace heapflare::tool
