// Understands the lines of /proc/PID/mountinfo and /proc/PID/cgroup (man 5 proc), as far as finding
// the memory controller needs.
//
//   36 35 98:0 /root /mount/point rw,noatime shared:1 master:2 - cgroup source rw,memory
//              root  mount_point  options    0..n optional      type   source super_options
//   4:cpu,memory:/kubepods/pod/container           (number:controllers:path; "0::PATH" is v2)
//
// `root` is the directory *of the hierarchy* that is mounted: a container without a cgroup
// namespace has its own directory there, and the paths in /proc/PID/cgroup have to be taken
// relative to it. In mountinfo a space, tab, newline or backslash is written as \ooo; in
// /proc/PID/cgroup it is not.
//
// All functions are pure, allocate nothing and are async-signal-safe; views point into the line.
#pragma once

#include <string_view>

#include "lib/base/text.h"

namespace heapflare::cgroup {

struct MountLine {
  std::string_view root;         // with \ooo
  std::string_view mount_point;  // with \ooo
  std::string_view type;
  std::string_view super_options;  // may have spaces
};
// False if the line is cut or is not one of mountinfo.
bool ParseMountLine(std::string_view line, MountLine* mount);

struct MembershipLine {
  std::string_view number;
  std::string_view controllers;
  std::string_view path;  // may have ':' and spaces
};
bool ParseMembershipLine(std::string_view line, MembershipLine* membership);

// Whether `item` is one of the comma-separated `list`: "memory" is not in "rw,name=memory,memory2".
bool ListHas(std::string_view list, std::string_view item);

// Appends a path of mountinfo, decoded.
void AddDecoded(std::string_view escaped, base::TextWriter* to);

// Where a cgroup `path` lies below a mount of `root` (a field of mountinfo): "" or "/...". False if
// it is not below it. Both may start with "/.." when they lie outside the reader's cgroup
// namespace.
bool PathBelow(std::string_view root, std::string_view path, std::string_view* below);

}  // namespace heapflare::cgroup
