#include "lib/recorder/identity.h"

#include <elf.h>

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

// The path that was given to execve, which the kernel leaves in the auxiliary vector; nullptr
// without /proc.
const char* ExecutedPath() {
  struct {
    uint64_t type;
    uint64_t value;
  } entries[64];
  const long bytes = base::ReadFile("/proc/self/auxv", entries, sizeof(entries));
  for (long i = 0; i < bytes / static_cast<long>(sizeof(entries[0])); ++i) {
    if (entries[i].type == AT_EXECFN) return reinterpret_cast<const char*>(entries[i].value);
  }
  return nullptr;
}

bool SameFile(const char* one, const char* other) {
  base::FileStatus a = {};
  base::FileStatus b = {};
  return base::Status(AT_FDCWD, one, 0, &a) == 0 && base::Status(AT_FDCWD, other, 0, &b) == 0 &&
         a.inode == b.inode && a.device_major == b.device_major && a.device_minor == b.device_minor;
}

void ReadNames(Identity* identity) {
  // Static, since the stack may be small: it is called by one thread at a time, see recorder.cc.
  static constinit char target[4096] = {};
  long bytes = base::ReadLink("/proc/self/exe", target, sizeof(target));
  if (bytes > 0) {
    std::string_view executable(target, static_cast<size_t>(bytes));
    constexpr std::string_view kDeleted = " (deleted)";
    if (executable.size() > kDeleted.size() &&
        executable.substr(executable.size() - kDeleted.size()) == kDeleted) {
      executable.remove_suffix(kDeleted.size());
    }
    AddFileName(Basename(executable), &identity->executable);
  }
  // A link's own name says more than what it leads to. What was executed can also be a script, whose
  // executable is another file.
  const char* const executed = ExecutedPath();
  if (executed != nullptr && SameFile(executed, "/proc/self/exe")) {
    AddFileName(Basename(executed), &identity->program);
  }
  if (identity->program.size() == 0) identity->program.Add(identity->executable.view());
  if (identity->program.size() == 0) identity->program.Add("unknown");

  bytes = base::ReadFile("/proc/self/cmdline", target, sizeof(target));
  if (bytes > 0) {
    const std::string_view first(target, strnlen(target, static_cast<size_t>(bytes)));
    identity->invoked.Add(Basename(first));
  }
}

}  // namespace

void ReadIdentity(Identity* identity) {
  if (identity->program.size() == 0) ReadNames(identity);
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

bool WrittenBy(const Identity& identity, const box::Header& header) {
  return identity.start_ticks != 0 && identity.pid_namespace != 0 &&
         header.pid == static_cast<uint32_t>(base::ProcessId()) &&
         header.start_ticks == identity.start_ticks &&
         header.pid_namespace == identity.pid_namespace;
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
  for (const char c : std::string_view(text, bytes > 0 ? static_cast<size_t>(bytes) : 0)) {
    const auto digit = base::ParseHex({&c, 1});
    if (!digit || nibbles == 2 * sizeof(header->boot_id)) continue;
    uint8_t& byte = header->boot_id[nibbles / 2];
    byte = static_cast<uint8_t>(byte << 4 | *digit);
    ++nibbles;
  }
}

}  // namespace heapflare::recorder
