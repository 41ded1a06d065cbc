#include "lib/recorder/identity.h"

#include <algorithm>
#include <cstring>

#include "lib/base/parse.h"
#include "lib/base/syscall.h"

namespace heapflare::recorder {
namespace {

std::string_view Basename(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

void AddFileName(std::string_view text, base::TextWriter* name) {
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '+' || c == '.';
    name->Add(plain ? c : '_');
  }
}

// Field 22 of /proc/PID/stat; the second field, the name in parentheses, may hold anything.
uint64_t StartTicks() {
  char text[1024];
  const long bytes = base::ReadFile("/proc/self/stat", text, sizeof(text));
  if (bytes <= 0) return 0;
  std::string_view rest(text, static_cast<size_t>(bytes));
  const size_t name_end = rest.rfind(')');
  if (name_end == std::string_view::npos) return 0;
  rest.remove_prefix(name_end + 1);
  std::string_view field;
  for (int number = 2; number <= 22; ++number) {
    if (!base::TakeUntil(' ', &rest, &field)) return 0;
  }
  return base::ParseNumber(field).value_or(0);
}

}  // namespace

void ReadIdentity(Identity* identity) {
  base::Path path;
  char target[4096];
  long bytes = base::ReadLink("/proc/self/exe", target, sizeof(target));
  identity->program.Clear();
  if (bytes > 0) {
    std::string_view executable(target, static_cast<size_t>(bytes));
    constexpr std::string_view kDeleted = " (deleted)";
    if (executable.size() > kDeleted.size() &&
        executable.substr(executable.size() - kDeleted.size()) == kDeleted) {
      executable.remove_suffix(kDeleted.size());
    }
    AddFileName(Basename(executable), &identity->program);
  }
  if (identity->program.size() == 0) identity->program.Add("unknown");

  identity->invoked.Clear();
  bytes = base::ReadFile("/proc/self/cmdline", target, sizeof(target));
  if (bytes > 0) {
    const std::string_view first(target, strnlen(target, static_cast<size_t>(bytes)));
    identity->invoked.Add(Basename(first));
  }

  // Ticks are hundredths of a second since boot for every program, whatever the kernel's own rate
  // (USER_HZ).
  constexpr int64_t kTick = 10'000'000;
  const int64_t now = base::UtcNanoseconds();
  identity->start_ticks = StartTicks();
  const int64_t age =
      base::ClockNanoseconds(CLOCK_BOOTTIME) - static_cast<int64_t>(identity->start_ticks) * kTick;
  const bool known = identity->start_ticks != 0 && age >= 0;
  identity->start_utc = static_cast<uint64_t>(known ? now - age : now);

  base::FileStatus status = {};
  identity->pid_namespace =
      base::Status(AT_FDCWD, "/proc/self/ns/pid", 0, &status) == 0 ? status.inode : 0;
}

void FillIdentity(const Identity& identity, box::Header* header) {
  header->pid = static_cast<uint32_t>(base::ProcessId());
  header->uid = base::EffectiveUserId();
  header->pid_namespace = identity.pid_namespace;
  header->start_ticks = identity.start_ticks;
  header->start_utc = identity.start_utc;
  header->opened_utc = static_cast<uint64_t>(base::UtcNanoseconds());
  header->opened_mono = static_cast<uint64_t>(base::MonotonicNanoseconds());
  memcpy(header->program, identity.program.c_str(),
         std::min(identity.program.size() + 1, sizeof(header->program)));

  char text[64];
  const long bytes = base::ReadFile("/proc/sys/kernel/random/boot_id", text, sizeof(text));
  size_t nibbles = 0;
  for (long i = 0; i < bytes && nibbles < 2 * sizeof(header->boot_id); ++i) {
    const auto digit = base::ParseHex({&text[i], 1});
    if (!digit) continue;
    uint8_t& byte = header->boot_id[nibbles / 2];
    byte = static_cast<uint8_t>(byte << 4 | *digit);
    ++nibbles;
  }
}

}  // namespace heapflare::recorder
