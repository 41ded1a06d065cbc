#include "lib/recorder/credentials.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>

#include <algorithm>
#include <cstring>

#include "lib/base/directory.h"
#include "lib/base/parse.h"
#include "lib/base/syscall.h"
#include "lib/base/text.h"

namespace heapflare::recorder {
namespace {

using base::TakeUntil;

// The next number of a list whose items are separated by blanks.
bool NextNumber(std::string_view* rest, uint32_t* number) {
  *rest = base::TrimSpace(*rest);
  size_t digits = 0;
  while (digits < rest->size() && (*rest)[digits] >= '0' && (*rest)[digits] <= '9') ++digits;
  const auto value = base::ParseNumber(rest->substr(0, digits));
  if (!value || *value > UINT32_MAX) return false;
  rest->remove_prefix(digits);
  *number = static_cast<uint32_t>(*value);
  return true;
}

bool ParseThree(std::string_view text, uint32_t (&ids)[3]) {
  return NextNumber(&text, &ids[0]) && NextNumber(&text, &ids[1]) && NextNumber(&text, &ids[2]);
}

bool ParseSet(std::string_view text, uint64_t* set) {
  const auto value = base::ParseHex(base::TrimSpace(text));
  if (value) *set = *value;
  return value.has_value();
}

bool ReadCredentials(int thread, Credentials* credentials) {
  base::Text<64> path("/proc/self/task/");
  path.AddNumber(static_cast<uint64_t>(thread)).Add("/status");
  char text[4096];
  const long bytes = base::ReadFile(path.c_str(), text, sizeof(text));
  return bytes > 0 && ParseCredentials({text, static_cast<size_t>(bytes)}, credentials);
}

// A thread of the process that has not ended, other than `own`; 0 if none is found. The leader if it
// still runs: it can have ended while others go on. `all_seen`: the list was read to its end.
int ServiceThread(int own, bool* all_seen) {
  int found = 0;
  bool own_seen = false;
  const int error = base::ForEachEntry("/proc/self/task", [&](std::string_view name) {
    const auto thread = base::ParseNumber(name);
    if (!thread) return true;
    if (static_cast<int>(*thread) == own) {
      own_seen = true;
      return true;
    }
    char state[512];
    base::Text<64> path("/proc/self/task/");
    path.Add(name).Add("/stat");
    const long bytes = base::ReadFile(path.c_str(), state, sizeof(state));
    const std::string_view text(state, bytes > 0 ? static_cast<size_t>(bytes) : 0);
    const size_t end = text.rfind(')');
    const char letter =
        end == std::string_view::npos || end + 2 >= text.size() ? '?' : text[end + 2];
    // Ended; look for another one. One that is gone by now has no such file any more.
    if (letter == 'Z' || letter == 'X' || bytes == -ENOENT || bytes == -ESRCH) return true;
    found = static_cast<int>(*thread);
    return false;
  });
  *all_seen = error == 0 && own_seen && found == 0;
  return found;
}

void TakeGroups(const Credentials& wanted) {
  base::Syscall(SYS_setgroups, wanted.group_count, base::Arg(wanted.groups));
  base::Syscall(SYS_setresgid, wanted.group[0], wanted.group[1], wanted.group[2]);
}

void Take(const Credentials& wanted) {
  // Groups first, while we may, and again if we may only as the other user. The capabilities are
  // kept over the change of user, since the service may have kept some; capset sets what is left.
  TakeGroups(wanted);
  base::Syscall(SYS_prctl, PR_SET_KEEPCAPS, 1, 0, 0, 0);
  base::Syscall(SYS_setresuid, wanted.user[0], wanted.user[1], wanted.user[2]);
  base::Syscall(SYS_prctl, PR_SET_KEEPCAPS, 0, 0, 0, 0);
  TakeGroups(wanted);
  __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct data[2] = {};
  for (int i = 0; i < 2; ++i) {
    data[i].effective = static_cast<uint32_t>(wanted.effective >> (32 * i));
    data[i].permitted = static_cast<uint32_t>(wanted.permitted >> (32 * i));
    data[i].inheritable = static_cast<uint32_t>(wanted.inheritable >> (32 * i));
  }
  base::Syscall(SYS_capset, base::Arg(&header), base::Arg(data));
}

}  // namespace

bool ParseCredentials(std::string_view status, Credentials* credentials) {
  *credentials = {};
  int found = 0;
  for (std::string_view line; TakeUntil('\n', &status, &line);) {
    std::string_view name;
    if (!TakeUntil(':', &line, &name)) continue;
    bool good = true;
    if (name == "Uid") {
      good = ParseThree(line, credentials->user);
    } else if (name == "Gid") {
      good = ParseThree(line, credentials->group);
    } else if (name == "Groups") {
      int& count = credentials->group_count;
      while (count < Credentials::kMaxGroups && NextNumber(&line, &credentials->groups[count])) {
        ++count;
      }
    } else if (name == "CapInh") {
      good = ParseSet(line, &credentials->inheritable);
    } else if (name == "CapPrm") {
      good = ParseSet(line, &credentials->permitted);
    } else if (name == "CapEff") {
      good = ParseSet(line, &credentials->effective);
    } else {
      continue;
    }
    if (!good) return false;
    ++found;
  }
  return found == 6;
}

bool FollowCredentials(uint32_t* user) {
  const int own = base::ThreadId();
  bool all_seen = false;
  const int other = ServiceThread(own, &all_seen);
  Credentials before = {};
  Credentials theirs = {};
  if (other == 0 || !ReadCredentials(own, &before) || !ReadCredentials(other, &theirs) ||
      before == theirs) {
    return false;
  }
  Take(theirs);
  *user = base::EffectiveUserId();
  Credentials after = {};
  return ReadCredentials(own, &after) && !(after == before);
}

bool ServiceHasEnded(int* exit_code) {
  bool all_seen = false;
  if (ServiceThread(base::ThreadId(), &all_seen) != 0 || !all_seen) return false;
  // Field 52 of the leader's stat, the last: its wait status. Unknown: 0.
  *exit_code = 0;
  char text[1024];
  base::Text<64> path("/proc/self/task/");
  path.AddNumber(static_cast<uint64_t>(base::ProcessId())).Add("/stat");
  const long bytes = base::ReadFile(path.c_str(), text, sizeof(text));
  const std::string_view line = base::TrimSpace({text, bytes > 0 ? static_cast<size_t>(bytes) : 0});
  const size_t last = line.rfind(' ');
  if (last != std::string_view::npos) {
    const auto status = base::ParseNumber(line.substr(last + 1));
    if (status) *exit_code = static_cast<int>(*status >> 8 & 0xff);
  }
  return true;
}

}  // namespace heapflare::recorder
