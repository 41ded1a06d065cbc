// The directories for boxes and dumps: whether the recorder will take them, and how good they are.
#include <errno.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "absl/strings/str_format.h"
#include "lib/doctor/environment.h"
#include "lib/recorder/settings.h"
#include "lib/target/human.h"
#include "lib/target/process.h"
#include "lib/target/target.h"

namespace heapflare::doctor {
namespace {

using target::HumanSize;

enum class Use { kBoxes, kDumps };

struct Wanted {
  Use use;
  const char* variable;
  std::string path;
  uint64_t bytes;  // that should be free
};

std::string Parent(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == 0 || slash == std::string::npos ? "/" : path.substr(0, slash);
}

// May `uid` make files in it? Exact for ourselves; for another user by the mode alone.
bool Writable(const std::string& path, const struct stat& status, uint32_t uid) {
  if (uid == geteuid()) return access(path.c_str(), W_OK | X_OK) == 0;
  return uid == 0 ||
         (status.st_uid == uid ? (status.st_mode & 0300) == 0300 : (status.st_mode & 0003) == 0003);
}

Finding CheckOne(const Wanted& wanted, const View& view) {
  const bool boxes = wanted.use == Use::kBoxes;
  const std::string path = view.root + wanted.path;
  Finding finding = {Level::kOk, boxes ? "boxes" : "dumps", wanted.path, ""};
  const auto fail = [&](const std::string& problem, const std::string& remedy) {
    finding.level = Level::kFail;
    finding.detail += ": " + problem;
    finding.remedy = remedy;
    return finding;
  };
  const std::string elsewhere =
      absl::StrFormat("set %s to a directory of your own", wanted.variable);
  struct stat status = {};
  std::string existing = path;
  if (lstat(path.c_str(), &status) == 0) {
    // The recorder takes none that somebody else could change under it.
    if (S_ISLNK(status.st_mode)) return fail("a symbolic link, which is not followed", elsewhere);
    if (!S_ISDIR(status.st_mode)) return fail("not a directory", elsewhere);
    if (status.st_uid != view.uid && status.st_uid != 0) {
      return fail(absl::StrFormat("belongs to user %d", status.st_uid), elsewhere);
    }
    if (!Writable(path, status, view.uid)) return fail("not writable", elsewhere);
    if ((status.st_mode & 0022) != 0 && (status.st_mode & S_ISVTX) == 0) {
      finding.level = Level::kWarn;
      finding.detail +=
          absl::StrFormat(" (mode %04o: others can replace what is in it)", status.st_mode & 07777);
      finding.remedy = "chmod go-w " + wanted.path;
    }
  } else if (errno != ENOENT) {
    return fail(strerror(errno), elsewhere);
  } else {
    // The recorder makes it, with its parents.
    do {
      existing = Parent(existing);
    } while (stat(existing.c_str(), &status) != 0 && errno == ENOENT && existing != "/");
    if (!S_ISDIR(status.st_mode) || !Writable(existing, status, view.uid)) {
      return fail("cannot be created there", "create it, or " + elsewhere);
    }
    finding.detail += ", will be created";
  }
  struct statfs system = {};
  if (statfs(existing.c_str(), &system) != 0) return finding;
  const bool in_memory = system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC;
  const uint64_t available = system.f_bavail * static_cast<uint64_t>(system.f_bsize);
  finding.detail +=
      absl::StrFormat(", %s, %s free", in_memory ? "in memory" : "on disk", HumanSize(available));
  if ((system.f_flags & ST_RDONLY) != 0) return fail("mounted read-only", elsewhere);
  if (available < wanted.bytes) {
    finding.level = Level::kWarn;
    finding.remedy = absl::StrFormat("make room for %s", HumanSize(wanted.bytes));
  } else if (boxes && !in_memory) {
    finding.level = Level::kWarn;
    finding.remedy = "use a tmpfs: writing to a mapped disk file can make the service wait";
  } else if (!boxes && in_memory && finding.level == Level::kOk) {
    // Charged to the same limit, and gone with the machine; but many containers have nothing else.
    finding.detail += " (counts against the memory limit)";
  }
  return finding;
}

}  // namespace

Findings CheckDirectories(const View& view, std::string_view environment) {
  recorder::Settings settings;
  recorder::ParseSettings(environment, &settings, [](std::string_view) {});
  const auto or_default = [](const base::Path& path, const std::string& otherwise) {
    return path.size() > 0 ? std::string(path.view()) : otherwise;
  };
  const std::string dumps =
      or_default(settings.dump_directory, target::DefaultDumpDirectory(view.uid));
  const std::string boxes =
      or_default(settings.box_directory, target::DefaultBoxDirectory(view.uid));
  Findings findings;
  findings.push_back(CheckOne({Use::kBoxes, "HEAPFLARE_BOX_DIR", boxes, settings.box_bytes}, view));
  if (findings[0].level == Level::kFail) {
    // The recorder then keeps its box with the dumps; nothing fails but the first choice.
    findings[0].level = Level::kWarn;
    findings[0].remedy += "; boxes go to " + dumps + " instead";
  }
  constexpr uint64_t kRoomForDumps = 16 << 20;
  findings.push_back(CheckOne({Use::kDumps, "HEAPFLARE_DIR", dumps, kRoomForDumps}, view));
  return findings;
}

}  // namespace heapflare::doctor
