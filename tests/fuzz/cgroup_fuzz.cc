// lib/cgroup: the contents of a cgroup's files and of /proc/meminfo. Input: the limit, 0xff, the
// usage, 0xff, memory.stat, 0xff, memory.events, 0xff, meminfo.
#include <memory>
#include <vector>

#include "lib/base/parse.h"
#include "lib/cgroup/controller.h"
#include "lib/cgroup/lines.h"
#include "lib/cgroup/node.h"
#include "tests/fuzz/file_tree.h"
#include "tests/fuzz/fuzz_target.h"

namespace heapflare::fuzz {
namespace {

using cgroup::kUnknown;
using cgroup::kUnlimited;

void Values(std::string_view text) {
  const Alone alone(text);
  uint64_t bytes = 0;
  uint64_t limit = 0;
  const bool is_number = cgroup::ParseBytes(alone.view(), &bytes);
  const bool is_limit = cgroup::ParseLimit(alone.view(), &limit);
  Require(is_limit || !is_number, "each number is a limit");
  Require(!is_number || limit == bytes || (limit == kUnlimited && bytes >= uint64_t{1} << 62),
          "of that size, or none");
  const auto plain = base::ParseNumber(base::TrimSpace(alone.view()));
  Require(is_number ? (plain ? *plain == bytes : bytes == UINT64_MAX) : !plain,
          "numbers are numbers, and too large ones the largest");
  std::string_view key;
  if (cgroup::ParseKeyValue(alone.view(), &key, &bytes)) {
    Require(text.starts_with(key), "a key comes first");
  }
}

void Lines(std::string_view text, size_t capacity) {
  std::vector<std::string_view> expected;
  std::string_view rest = text;
  for (std::string_view line; base::TakeUntil('\n', &rest, &line);) {
    // A line needs room for its newline; the last one may do without.
    const bool last = line.data() + line.size() == text.data() + text.size();
    if (line.size() < capacity || (last && line.size() < capacity)) expected.push_back(line);
  }
  static MemoryFile file;
  file.Write(text);
  const auto buffer = std::make_unique<char[]>(capacity);
  cgroup::Lines lines(file.Open(), buffer.get(), capacity);
  size_t count = 0;
  for (std::string_view line; lines.Next(&line); ++count) {
    Require(count < expected.size() && line == expected[count], "each line is one of the text");
  }
  Require(count == expected.size() && lines.error() == 0, "all that fit the buffer are there");
}

void Node(std::string_view text) {
  static MemoryFile file;
  file.Write(text);
  cgroup::NodeMemory node;
  if (cgroup::ReadNodeMemory(file.path().c_str(), &node) != 0) return;
  Require(node.total != kUnknown, "the machine has some memory");
  Require(node.in_use() == kUnknown || node.in_use() <= node.total, "no more in use than there is");
}

void Controller(cgroup::Version version, std::string_view limit_text, std::string_view usage_text,
                std::string_view stat_text, std::string_view events_text,
                std::string_view meminfo) {
  static FileTree tree;
  const bool v1 = version == cgroup::Version::kV1;
  tree.Write("self/mountinfo", v1 ? "57 70 0:31 / /m ro - cgroup cgroup rw,memory\n"
                                  : "57 70 0:31 / /m ro - cgroup2 cgroup rw\n");
  tree.Write("self/cgroup", v1 ? "7:memory:/\n" : "0::/\n");
  tree.Write("meminfo", meminfo);
  tree.Write(v1 ? "m/memory.limit_in_bytes" : "m/memory.max", limit_text);
  tree.Write(v1 ? "m/memory.usage_in_bytes" : "m/memory.current", usage_text);
  tree.Write(v1 ? "m/memory.oom_control" : "m/memory.events", events_text);
  tree.Write("m/memory.stat", stat_text);
  static cgroup::MemoryController controller;
  Require(controller.Find(tree.roots()) == version, "the controller is found");
  const cgroup::Limit limit = controller.ReadLimit();
  Require(limit.lowest.bytes <= limit.nearest.bytes, "the lowest limit is the lowest");
  Require(limit.nearest.headroom() <= limit.nearest.bytes, "headroom is below the limit");
  Require((limit.source == cgroup::LimitSource::kNone) == (limit.lowest.bytes == kUnlimited),
          "a limit has a source");
  uint64_t usage = kUnknown;
  cgroup::MemoryStat stat;
  cgroup::MemoryEvents events;
  const int error = controller.ReadUsage(0, &usage);
  controller.ReadStat(0, &stat);
  controller.ReadEvents(0, &events);
  if (error == 0) Require(cgroup::WorkingSet(usage, stat) <= usage, "a working set is a part");
  uint64_t expected = 0;
  const bool is_number = usage_text.size() < 32 && cgroup::ParseBytes(usage_text, &expected);
  Require((error == 0) == is_number, "a usage is all of its file");
  Require(error != 0 || usage == expected, "and its number");
  controller.Forget();
}

}  // namespace

void FuzzOne(std::string_view bytes) {
  Input input(bytes);
  const auto choice = input.Take<uint8_t>();
  const std::string_view text = input.Rest();
  const std::string_view limit = input.Part();
  const std::string_view usage = input.Part();
  const std::string_view stat = input.Part();
  const std::string_view events = input.Part();
  const std::string_view meminfo = input.Part();
  Values(limit);
  Values(usage);
  Lines(text, 1 + choice);
  Node(meminfo);
  Controller(choice % 2 == 0 ? cgroup::Version::kV1 : cgroup::Version::kV2, limit, usage, stat,
             events, meminfo);
}

}  // namespace heapflare::fuzz
