#include "lib/recorder/credentials.h"

#include <linux/capability.h>

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

// A thread of the service; 0 if none is found. The leader if it still runs: it can have ended while
// others go on.
int ServiceThread(int own) {
  int found = 0;
  base::ForEachEntry("/proc/self/task", [&](std::string_view name) {
    const auto thread = base::ParseNumber(name);
    if (!thread || static_cast<int>(*thread) == own) return true;
    found = static_cast<int>(*thread);
    char state[512];
    base::Text<64> path("/proc/self/task/");
    path.Add(name).Add("/stat");
    const long bytes = base::ReadFile(path.c_str(), state, sizeof(state));
    const std::string_view text(state, bytes > 0 ? static_cast<size_t>(bytes) : 0);
    const size_t end = text.rfind(')');
    // "Z": ended; look for another one.
    return end == std::string_view::npos || end + 2 >= text.size() || text[end + 2] == 'Z';
  });
  return found;
}

void Take(const Credentials& wanted) {
  // Groups first, while we may; the user last. setresuid from root drops the capabilities, capset
  // sets what is left.
  base::Syscall(SYS_setgroups, wanted.group_count, base::Arg(wanted.groups));
  base::Syscall(SYS_setresgid, wanted.group[0], wanted.group[1], wanted.group[2]);
  base::Syscall(SYS_setresuid, wanted.user[0], wanted.user[1], wanted.user[2]);
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
  const int other = ServiceThread(own);
  Credentials ours = {};
  Credentials theirs = {};
  if (other == 0 || !ReadCredentials(own, &ours) || !ReadCredentials(other, &theirs) ||
      ours == theirs) {
    return false;
  }
  Take(theirs);
  *user = base::EffectiveUserId();
  return true;
}

}  // namespace heapflare::recorder
