#include "lib/cgroup/mountinfo.h"

#include <cstddef>

#include "lib/base/parse.h"

namespace heapflare::cgroup {
namespace {

// Takes one character off a mountinfo path.
char TakeDecoded(std::string_view* escaped) {
  const std::string_view text = *escaped;
  const auto digit = [&](size_t i) { return text[i] >= '0' && text[i] <= '7'; };
  if (text[0] == '\\' && text.size() >= 4 && digit(1) && digit(2) && digit(3)) {
    escaped->remove_prefix(4);
    return static_cast<char>((text[1] - '0') * 64 + (text[2] - '0') * 8 + (text[3] - '0'));
  }
  escaped->remove_prefix(1);
  return text[0];
}

bool HasParentStep(std::string_view path) {
  for (std::string_view step; base::TakeUntil('/', &path, &step);) {
    if (step == "..") return true;
  }
  return false;
}

}  // namespace

bool ParseMountLine(std::string_view line, MountLine* mount) {
  std::string_view unused;
  // number, parent, device
  for (int i = 0; i < 3; ++i) {
    if (!base::TakeUntil(' ', &line, &unused)) return false;
  }
  if (!base::TakeUntil(' ', &line, &mount->root) ||
      !base::TakeUntil(' ', &line, &mount->mount_point) || !base::TakeUntil(' ', &line, &unused)) {
    return false;
  }
  // The optional fields end with a lone "-".
  do {
    if (!base::TakeUntil(' ', &line, &unused)) return false;
  } while (unused != "-");
  std::string_view source;
  if (!base::TakeUntil(' ', &line, &mount->type) || !base::TakeUntil(' ', &line, &source)) {
    return false;
  }
  mount->super_options = line;
  return !mount->root.empty() && !mount->mount_point.empty() && !line.empty();
}

bool ParseMembershipLine(std::string_view line, MembershipLine* membership) {
  if (!base::TakeUntil(':', &line, &membership->number) ||
      !base::TakeUntil(':', &line, &membership->controllers)) {
    return false;
  }
  membership->path = line;
  return !line.empty() && line.front() == '/';
}

bool ListHas(std::string_view list, std::string_view item) {
  for (std::string_view one; base::TakeUntil(',', &list, &one);) {
    if (one == item) return true;
  }
  return false;
}

void AddDecoded(std::string_view escaped, base::TextWriter* to) {
  while (!escaped.empty()) to->Add(TakeDecoded(&escaped));
}

bool PathBelow(std::string_view root, std::string_view path, std::string_view* below) {
  if (path.empty()) return false;
  if (root != "/") {
    while (!root.empty()) {
      if (path.empty() || TakeDecoded(&root) != path.front()) return false;
      path.remove_prefix(1);
    }
    // "/a/bc" is not below "/a/b".
    if (!path.empty() && path.front() != '/') return false;
  }
  // The directory above the mount's root cannot be reached through the mount.
  if (HasParentStep(path)) return false;
  while (!path.empty() && path.back() == '/') path.remove_suffix(1);
  *below = path;
  return true;
}

}  // namespace heapflare::cgroup
