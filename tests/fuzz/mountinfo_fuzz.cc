// lib/cgroup/find and mountinfo: /proc/self/mountinfo and /proc/self/cgroup, against a tree of real
// files. Input: mountinfo, 0xff, cgroup.
#include "lib/base/parse.h"
#include "lib/cgroup/controller.h"
#include "lib/cgroup/mountinfo.h"
#include "tests/fuzz/file_tree.h"
#include "tests/fuzz/fuzz_target.h"

namespace heapflare::fuzz {
namespace {

using cgroup::MemoryController;
using cgroup::Version;

std::string Decoded(std::string_view escaped) {
  std::string text;
  for (size_t i = 0; i < escaped.size(); ++i) {
    const std::string_view code = escaped.substr(i, 4);
    if (code.size() == 4 && code[0] == '\\' &&
        code.find_first_not_of("01234567", 1) == std::string_view::npos) {
      text += static_cast<char>(strtol(std::string(code.substr(1)).c_str(), nullptr, 8));
      i += 3;
    } else {
      text += escaped[i];
    }
  }
  return text;
}

// The same as PathBelow, the long way.
bool IsBelow(std::string_view root, std::string_view path, std::string* below) {
  if (path.empty()) return false;
  std::string prefix = root == "/" ? "" : Decoded(root);
  if (path.substr(0, prefix.size()) != prefix) return false;
  *below = path.substr(prefix.size());
  if (!prefix.empty() && !below->empty() && below->front() != '/') return false;
  if (("/" + *below + "/").find("/../") != std::string::npos) return false;
  while (!below->empty() && below->back() == '/') below->pop_back();
  return true;
}

void Lines(std::string_view mountinfo, std::string_view membership, bool* has_v1) {
  std::string_view own = membership.substr(0, membership.find('\n'));
  cgroup::MembershipLine member = {};
  if (cgroup::ParseMembershipLine(own, &member)) {
    Require(member.path.front() == '/', "a cgroup's path begins at the root");
    own = member.path;
  }
  for (std::string_view line; base::TakeUntil('\n', &mountinfo, &line);) {
    const Alone alone(line);
    cgroup::MountLine mount = {};
    if (!cgroup::ParseMountLine(alone.view(), &mount)) continue;
    base::Text<4096> text;
    cgroup::AddDecoded(mount.mount_point.substr(0, 4095), &text);
    Require(text.view() == Decoded(mount.mount_point.substr(0, 4095)), "paths are decoded");
    const std::string options = "," + std::string(mount.super_options) + ",";
    const bool memory = cgroup::ListHas(mount.super_options, "memory");
    Require(memory == (options.find(",memory,") != std::string::npos), "an option is there or not");
    *has_v1 = *has_v1 || (mount.type == "cgroup" && memory && line.size() < 4096);
    std::string expected;
    std::string_view below;
    const bool is_below = cgroup::PathBelow(mount.root, own, &below);
    Require(is_below == IsBelow(mount.root, own, &expected), "a path is below the root or not");
    Require(!is_below || below == expected, "and the rest is what is below");
  }
}

}  // namespace

void FuzzOne(std::string_view bytes) {
  Input input(bytes);
  const std::string_view mountinfo = input.Part();
  const std::string_view membership = input.Rest();
  bool has_v1 = false;
  Lines(mountinfo, membership, &has_v1);

  static FileTree tree;
  static const bool made = [] {
    tree.Write("meminfo", "MemTotal: 16384000 kB\nMemAvailable: 12288000 kB\n");
    for (const char* directory : {"", "/a", "/a/b", "/a/b/c d"}) {
      const std::string v2 = std::string("sys/fs/cgroup") + directory;
      tree.Write(v2 + "/memory.current", "1048576\n");
      tree.Write(v2 + "/memory.max", "67108864\n");
      tree.Write(v2 + "/memory.stat", "anon 1\nfile 2\ninactive_file 1\n");
      tree.Write(v2 + "/cgroup.controllers", "cpu memory\n");
      const std::string v1 = std::string("sys/fs/cgroup/memory") + directory;
      tree.Write(v1 + "/memory.usage_in_bytes", "1048576\n");
      tree.Write(v1 + "/memory.limit_in_bytes", "33554432\n");
      tree.Write(v1 + "/memory.stat", "hierarchical_memory_limit 16777216\ntotal_rss 1\n");
    }
    return true;
  }();
  Require(made, "the tree is there");
  tree.Write("self/mountinfo", mountinfo);
  tree.Write("self/cgroup", membership);

  static MemoryController controller;
  const Version version = controller.Find(tree.roots());
  Require(!has_v1 || version != Version::kV2, "where v1 has the controller v2 has it not");
  Require(controller.levels() >= 0 && controller.levels() <= cgroup::kMaxLevels, "levels");
  Require((version == Version::kNone) == (controller.levels() == 0), "a controller has levels");
  Require(controller.reason() != nullptr, "what did not go straight is told");
  const std::string_view prefix = tree.root();
  for (int level = 0; level < controller.levels(); ++level) {
    const std::string_view directory = controller.directory(level);
    Require(directory.starts_with(prefix), "nothing is looked for elsewhere");
    if (level == 0) continue;
    const std::string_view inner = controller.directory(level - 1);
    Require(inner.size() > directory.size() && inner.starts_with(directory) &&
                inner[directory.size()] == '/' &&
                inner.find('/', directory.size() + 1) == std::string_view::npos,
            "each level is the directory around the one before");
  }
  Require(!controller.Moved(), "nothing has moved");
  const cgroup::Limit limit = controller.ReadLimit();
  Require(
      limit.source == cgroup::LimitSource::kCgroup || limit.source == cgroup::LimitSource::kNode,
      "there is always the machine's memory");
  Require(limit.nearest.bytes >= limit.lowest.bytes, "the lowest limit is the lowest");
  uint64_t usage = 0;
  cgroup::MemoryStat stat;
  cgroup::MemoryEvents events;
  for (int level = cgroup::kHiddenLevel; level <= controller.levels(); ++level) {
    controller.ReadUsage(level, &usage);
    controller.ReadStat(level, &stat);
    controller.ReadEvents(level, &events);
  }
  controller.Forget();
}

}  // namespace heapflare::fuzz
