#include <errno.h>
#include <grp.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "gtest/gtest.h"
#include "tests/unit/cgroup_fixture.h"

namespace heapflare::cgroup {
namespace {

struct Case {
  const char* fixture;
  LimitSource source;
  Bound lowest;
  Bound nearest;
  int error = 0;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.fixture; }

constexpr auto kCgroup = LimitSource::kCgroup;
constexpr Bound kWholeNode = {kNodeTotal, kNodeInUse, kNodeLevel};
constexpr Bound kNothing = {};

Case Same(const char* fixture, Bound bound, int error = 0) {
  return {fixture, kCgroup, bound, bound, error};
}
Case Unlimited(const char* fixture, int error = 0) {
  return {fixture, LimitSource::kNode, kWholeNode, kWholeNode, error};
}

const Case kCases[] = {
    Same("v2_cgroupns", {64 * kMiB, 1204224, 0}),
    // The pod's siblings have filled it: it kills sooner than the container's own, lower limit.
    {"v2_host_path", kCgroup, {512 * kMiB, 100 * kMiB, 0}, {1024 * kMiB, 1000 * kMiB, 1}},
    Unlimited("v2_max"),
    Same("v2_limit_on_ancestor_only", {256 * kMiB, 200 * kMiB, 1}),
    Same("v2_lower_ancestor", {256 * kMiB, 60 * kMiB, 1}),
    Same("v2_limit_is_all_memory", {kNodeTotal, 50 * kMiB, 0}),
    Unlimited("v2_limit_above_memory"),
    Unlimited("v2_huge_numbers"),
    Same("v2_controller_above", {200 * kMiB, 20 * kMiB, 0}),
    Unlimited("v2_root"),
    Unlimited("v2_without_memory"),
    Unlimited("v2_garbage", -EINVAL),
    Same("v2_limit_is_directory", {256 * kMiB, 60 * kMiB, 1}, -EISDIR),
    Same("v1_cgroupns", {64 * kMiB, 2007040, 0}),
    Same("v1_host_path", {64 * kMiB, 2007040, 0}),
    Same("v1_host_path_nested", {32 * kMiB, 1007040, 0}),
    Same("v1_not_below_mount", {64 * kMiB, 2007040, 0}),
    Unlimited("v1_unlimited_4k"),
    // Not even meminfo can be read.
    {"v1_unlimited_64k", LimitSource::kNone, kNothing, kNothing},
    Same("v1_hidden_ancestor", {128 * kMiB, 50 * kMiB, kHiddenLevel}),
    {"v1_lower_ancestor", kCgroup, {256 * kMiB, 200 * kMiB, 1}, {256 * kMiB, 200 * kMiB, 1}},
    Same("v1_no_hierarchy", {512 * kMiB, 50 * kMiB, 0}),
    Same("v1_duplicate_mounts", {64 * kMiB, 10 * kMiB, 0}),
    Same("v1_combined_controllers", {64 * kMiB, 10 * kMiB, 0}),
    Same("hybrid", {64 * kMiB, 10 * kMiB, 0}),
    Unlimited("none"),
    {"no_proc", LimitSource::kNone, kNothing, kNothing},
    {"cut_mountinfo",
     LimitSource::kNode,
     {kNodeTotal, kUnknown, kNodeLevel},
     {kNodeTotal, kUnknown, kNodeLevel}},
};

void ExpectBound(const Bound& found, const Bound& expected) {
  EXPECT_EQ(found.bytes, expected.bytes);
  EXPECT_EQ(found.usage, expected.usage);
  EXPECT_EQ(found.level, expected.level);
}

class CgroupLimit : public testing::TestWithParam<Case> {};

TEST_P(CgroupLimit, IsReadIn) {
  Fixture fixture(GetParam().fixture);
  const Limit limit = fixture.controller.ReadLimit();
  EXPECT_EQ(limit.source, GetParam().source);
  EXPECT_EQ(limit.error, GetParam().error);
  {
    SCOPED_TRACE("lowest");
    ExpectBound(limit.lowest, GetParam().lowest);
  }
  {
    SCOPED_TRACE("nearest");
    ExpectBound(limit.nearest, GetParam().nearest);
  }
  // What a watcher does from then on.
  uint64_t usage = kUnknown;
  fixture.controller.ReadUsage(limit.nearest.level, &usage);
  EXPECT_EQ(usage, GetParam().nearest.usage);
}

INSTANTIATE_TEST_SUITE_P(, CgroupLimit, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.fixture); });

TEST(CgroupLimitMore, NamesTheLowestMemoryHigh) {
  const Limit limit = Fixture("v2_host_path").controller.ReadLimit();
  ExpectBound(limit.high, {900 * kMiB, 1000 * kMiB, 1});
  EXPECT_EQ(Fixture("v2_max").controller.ReadLimit().high.bytes, kUnlimited);
}

TEST(CgroupLimitMore, FollowsChangesWhileRunning) {
  TemporaryTree tree;
  tree.WriteContainer("67108864\n", "4096\n");
  tree.Find();
  EXPECT_EQ(tree.controller.ReadLimit().lowest.bytes, 64 * kMiB);
  tree.Write("sys/fs/cgroup/memory.max", "33554432\n");
  tree.Write("sys/fs/cgroup/memory.current", "8192\n");
  ExpectBound(tree.controller.ReadLimit().lowest, {32 * kMiB, 8192, 0});
  tree.Write("sys/fs/cgroup/memory.max", "max\n");
  EXPECT_EQ(tree.controller.ReadLimit().source, LimitSource::kNode);
  tree.Write("sys/fs/cgroup/memory.max", "134217728\n");
  EXPECT_EQ(tree.controller.ReadLimit().lowest.bytes, 128 * kMiB);
}

TEST(CgroupLimitMore, FollowsMemoryThatIsPluggedIn) {
  TemporaryTree tree;
  tree.WriteContainer("33554432000\n", "4096\n");
  tree.Find();
  EXPECT_EQ(tree.controller.ReadLimit().source, LimitSource::kNode);
  tree.Write("meminfo", "MemTotal: 65536000 kB\nMemAvailable: 12288000 kB\n");
  EXPECT_EQ(tree.controller.ReadLimit().source, LimitSource::kCgroup);
}

TEST(CgroupLimitMore, GoesOnWithoutTheLevelsThatItMayNotRead) {
  TemporaryTree tree;
  tree.WriteContainer("268435456\n", "62914560\n");
  tree.Write("self/cgroup", "0::/app\n");
  tree.Write("sys/fs/cgroup/app/memory.max", "67108864\n");
  tree.Write("sys/fs/cgroup/app/memory.current", "4096\n");
  for (const char* file : {"memory.max", "memory.current"}) {
    ASSERT_EQ(chmod((tree.root() / "sys/fs/cgroup/app" / file).c_str(), 0), 0);
  }
  // Root reads everything.
  const pid_t child = fork();
  if (child == 0) {
    if (geteuid() == 0 &&
        (setgroups(0, nullptr) != 0 || setgid(65534) != 0 || setuid(65534) != 0)) {
      _exit(99);
    }
    int wrong = 0;
    uint64_t usage = 0;
    wrong |= tree.Find() != Version::kV2;
    wrong |= (tree.controller.ReadUsage(0, &usage) != -EACCES) << 1;
    const Limit limit = tree.controller.ReadLimit();
    wrong |= (limit.error != -EACCES) << 2;
    wrong |= (limit.lowest.bytes != 256 * kMiB || limit.lowest.level != 1) << 3;
    MemoryStat stat;
    wrong |= (tree.controller.ReadStat(0, &stat) != -ENOENT) << 4;
    _exit(wrong);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 99) GTEST_SKIP() << "this root may not become another user";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace heapflare::cgroup
