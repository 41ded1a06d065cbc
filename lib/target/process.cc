#include "lib/target/process.h"

#include <sys/stat.h>
#include <time.h>

#include <array>
#include <climits>
#include <cstring>
#include <vector>

#include "absl/strings/str_format.h"
#include "lib/base/directory.h"
#include "lib/base/parse.h"
#include "lib/target/files.h"

namespace heapflare::target {
namespace {

// The recorder's thread gives a sign of life once a second.
constexpr uint64_t kSilentAfterNs = 10'000'000'000;

uint64_t Inode(const std::string& path) {
  struct stat status = {};
  return stat(path.c_str(), &status) == 0 ? status.st_ino : 0;
}

using BootId = std::array<uint8_t, 16>;

// All zero where it cannot be read.
BootId ReadBootId() {
  BootId id = {};
  const auto text = ReadWhole("/proc/sys/kernel/random/boot_id", 256);
  if (!text.ok()) return id;
  size_t nibbles = 0;
  for (const char c : *text) {
    const auto digit = base::ParseHex({&c, 1});
    if (!digit || nibbles == 2 * id.size()) continue;
    id[nibbles / 2] = static_cast<uint8_t>(id[nibbles / 2] << 4 | *digit);
    ++nibbles;
  }
  return id;
}

bool SameBoot(const box::Header& header) {
  const BootId own = ReadBootId();
  const BootId none = {};
  return own == none || memcmp(header.boot_id, none.data(), none.size()) == 0 ||
         memcmp(header.boot_id, own.data(), own.size()) == 0;
}

uint64_t MonotonicNow() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace

std::string ProcPath(int pid, std::string_view file) {
  return absl::StrFormat("/proc/%d%s", pid, file);
}

std::optional<Process> LookUp(int pid) {
  const auto stat = ReadWhole(ProcPath(pid, "/stat"), 4096);
  const auto status = ReadWhole(ProcPath(pid, "/status"), 64 << 10);
  if (!stat.ok() || !status.ok()) return std::nullopt;
  Process process = {.pid = pid, .pid_inside = pid};
  // The second field, the name in parentheses, may hold anything.
  const size_t name_end = stat->rfind(") ");
  if (name_end == std::string::npos) return std::nullopt;
  std::string_view rest = std::string_view(*stat).substr(name_end + 2);
  std::string_view field;
  for (int number = 3; number <= 22; ++number) {
    if (!base::TakeUntil(' ', &rest, &field)) return std::nullopt;
    if (number == 3) process.zombie = field == "Z" || field == "X";
    if (number == 4) process.parent = ParsePid(field).value_or(0);
  }
  const auto start = base::ParseNumber(field);
  if (!start) return std::nullopt;
  process.start_ticks = *start;
  rest = *status;
  for (std::string_view line; base::TakeUntil('\n', &rest, &line);) {
    if (!line.starts_with("NSpid:")) continue;
    // From the outermost namespace to the process's own.
    line = base::TrimSpace(line.substr(line.find_last_of(" \t") + 1));
    if (const auto inside = ParsePid(line)) process.pid_inside = *inside;
  }
  process.pid_namespace = Inode(ProcPath(pid, "/ns/pid"));
  return process;
}

int BehindRun(int pid) {
  if (Basename(ReadLink(ProcPath(pid, "/exe"))) != "heapflare") return pid;
  for (const int other : AllPids()) {
    const auto process = LookUp(other);
    if (process && process->parent == pid && !process->zombie) return other;
  }
  return pid;
}

bool Wrote(const Process& process, const box::Header& header) {
  return static_cast<uint32_t>(process.pid_inside) == header.pid &&
         process.start_ticks == header.start_ticks &&
         (process.pid_namespace == header.pid_namespace || process.pid_namespace == 0 ||
          header.pid_namespace == 0);
}

Life LifeOf(const box::Header& header) {
  if (header.state == static_cast<uint32_t>(box::State::kClosed)) return Life::kExited;
  if (!SameBoot(header)) return Life::kDead;
  const auto lives = [&header](int pid) {
    const auto process = LookUp(pid);
    return process && !process->zombie && Wrote(*process, header);
  };
  const uint64_t own_namespace = Inode("/proc/self/ns/pid");
  if (header.pid_namespace == own_namespace && own_namespace != 0) {
    const bool fits = header.pid > 0 && header.pid <= INT_MAX;
    return fits && lives(static_cast<int>(header.pid)) ? Life::kAlive : Life::kDead;
  }
  // A process of another namespace has another number here, if it is to be seen at all.
  bool namespace_visible = false;
  for (const int pid : AllPids()) {
    if (lives(pid)) return Life::kAlive;
    namespace_visible =
        namespace_visible || Inode(ProcPath(pid, "/ns/pid")) == header.pid_namespace;
  }
  if (namespace_visible) return Life::kDead;
  const uint64_t now = MonotonicNow();
  const bool recent = header.heartbeat_mono <= now && now - header.heartbeat_mono < kSilentAfterNs;
  return recent ? Life::kAlive : Life::kSilent;
}

std::string_view Name(Life life) {
  switch (life) {
    case Life::kAlive:
      return "alive";
    case Life::kExited:
      return "exited";
    case Life::kDead:
      return "dead";
    case Life::kSilent:
      return "silent";
  }
  return "";
}

absl::StatusOr<std::string> ReadEnvironment(int pid) {
  return ReadWhole(ProcPath(pid, "/environ"), 8 << 20);
}

std::string Variable(std::string_view environment, std::string_view name) {
  for (std::string_view entry; base::TakeUntil('\0', &environment, &entry);) {
    if (entry.starts_with(name) && entry.substr(name.size()).starts_with('=')) {
      return std::string(entry.substr(name.size() + 1));
    }
  }
  return "";
}

std::optional<int> ParsePid(std::string_view text) {
  const auto number = base::ParseNumber(text);
  if (!number || *number == 0 || *number > INT_MAX) return std::nullopt;
  return static_cast<int>(*number);
}

std::vector<int> AllPids() {
  std::vector<int> pids;
  base::ForEachEntry("/proc", [&pids](std::string_view name) {
    if (const auto pid = ParsePid(name)) pids.push_back(*pid);
    return true;
  });
  return pids;
}

}  // namespace heapflare::target
