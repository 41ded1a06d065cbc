// Which directory is found in which surroundings; what limits it is cgroup_limit_test.cc.
#include <errno.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/cgroup_fixture.h"

namespace heapflare::cgroup {
namespace {

struct Case {
  const char* fixture;
  Version version;
  std::vector<const char*> directories;  // level 0 first
  const char* reason = "";               // a part of it
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.fixture; }

constexpr auto kV1 = Version::kV1;
constexpr auto kV2 = Version::kV2;
constexpr auto kNone = Version::kNone;
constexpr const char* kRoot2 = "/sys/fs/cgroup";
constexpr const char* kRoot1 = "/sys/fs/cgroup/memory";

const Case kCases[] = {
    {"v2_cgroupns", kV2, {kRoot2}},
    {"v2_host_path",
     kV2,
     {"/sys/fs/cgroup/kubepods.slice/kubepods-pod7.slice/app.scope",
      "/sys/fs/cgroup/kubepods.slice/kubepods-pod7.slice", "/sys/fs/cgroup/kubepods.slice",
      kRoot2}},
    {"v2_root", kV2, {kRoot2}},
    {"v2_controller_above",
     kV2,
     {"/sys/fs/cgroup/user.slice/session.scope", "/sys/fs/cgroup/user.slice", kRoot2},
     "nearest one above"},
    {"v2_without_memory", kNone, {}, "without the memory controller"},
    {"v2_outside_namespace", kV2, {kRoot2}, "outside"},
    {"v2_foreign_mount_below_own", kV2, {kRoot2}},
    {"v2_only_foreign_mount", kV2, {kRoot2}, "outside"},
    {"v2_mount_root_above_namespace",
     kV2,
     {"/sys/fs/cgroup/sibling/x", "/sys/fs/cgroup/sibling", kRoot2}},
    {"v2_no_own_path", kV2, {kRoot2}, "not known"},
    {"v2_odd_names",
     kV2,
     {"/sys/fs/cgroup of box/a pod/cri:7:app", "/sys/fs/cgroup of box/a pod",
      "/sys/fs/cgroup of box"}},
    {"v2_optional_fields", kV2, {kRoot2}},
    {"v2_garbage", kV2, {"/sys/fs/cgroup/app", kRoot2}},
    {"v1_cgroupns", kV1, {kRoot1}},
    {"v1_host_path", kV1, {kRoot1}},
    {"v1_host_path_nested", kV1, {"/sys/fs/cgroup/memory/worker", kRoot1}},
    {"v1_not_below_mount", kV1, {kRoot1}, "outside"},
    {"v1_mount_on_top", kV1, {"/sys/fs/cgroup/memory/app", kRoot1}},
    {"v1_duplicate_mounts", kV1, {"/sys/fs/cgroup/memory/app", kRoot1}},
    {"v1_combined_controllers",
     kV1,
     {"/sys/fs/cgroup/cpu,memory/app", "/sys/fs/cgroup/cpu,memory"}},
    {"v1_options_with_spaces", kV1, {kRoot1}},
    {"v1_no_hierarchy", kV1, {"/sys/fs/cgroup/memory/pod/app"}},
    {"v1_hidden_by_other_mount", kNone, {}, "does not show it"},
    {"hybrid", kV1, {"/sys/fs/cgroup/memory/app", kRoot1}},
    {"hybrid_v2_first", kV1, {"/sys/fs/cgroup/memory/app", kRoot1}},
    {"none", kNone, {}, "no memory cgroup"},
    {"no_proc", kNone, {}, "cannot read mountinfo"},
    {"cut_mountinfo", kNone, {}, "no memory cgroup"},
};

class CgroupFind : public testing::TestWithParam<Case> {};

TEST_P(CgroupFind, FindsTheDirectoriesOf) {
  Fixture fixture(GetParam().fixture);
  EXPECT_EQ(fixture.controller.version(), GetParam().version);
  ASSERT_EQ(fixture.controller.levels(), static_cast<int>(GetParam().directories.size()));
  for (int level = 0; level < fixture.controller.levels(); ++level) {
    EXPECT_EQ(fixture.Directory(level), GetParam().directories[static_cast<size_t>(level)]);
  }
  const std::string reason = fixture.controller.reason();
  if (*GetParam().reason == 0) {
    EXPECT_EQ(reason, "");
    EXPECT_EQ(fixture.controller.error(), 0);
  } else {
    EXPECT_NE(reason.find(GetParam().reason), std::string::npos) << reason;
  }
}

INSTANTIATE_TEST_SUITE_P(, CgroupFind, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.fixture); });

TEST(CgroupFindMore, SaysWhichSystemCallFailed) {
  EXPECT_EQ(Fixture("no_proc").controller.error(), -ENOENT);
  EXPECT_EQ(Fixture("v2_no_own_path").controller.error(), -ENOENT);
}

TEST(CgroupFindMore, AnswersBeforeItHasLooked) {
  MemoryController controller;
  uint64_t usage = 0;
  EXPECT_EQ(controller.version(), Version::kNone);
  EXPECT_EQ(controller.directory(), "");
  EXPECT_EQ(controller.ReadUsage(0, &usage), -ENOENT);
  EXPECT_FALSE(controller.Moved());
}

TEST(CgroupFindMore, PassesOverLinesLongerThanAnyPath) {
  TemporaryTree tree;
  tree.WriteContainer("67108864\n", "4096\n");
  // Its tail, taken for a line of its own, would be a v1 mount.
  const std::string lie = "75 71 0:32 / /lie rw - cgroup cgroup rw,memory\n";
  std::string mounts;
  for (int i = 0; i < 2000; ++i) mounts += "1 1 0:1 / /m" + std::to_string(i) + " rw - t t rw\n";
  // At every position relative to the reader's buffer.
  for (size_t length = 4096; length < 4096 + 2 * lie.size(); ++length) {
    mounts += "2 1 0:2 / /" + std::string(length, 'o') + " rw - overlay overlay rw,lower=" + lie;
  }
  tree.Write("self/mountinfo", mounts + "57 70 0:31 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
  EXPECT_EQ(tree.Find(), Version::kV2);
  EXPECT_EQ(tree.Directory(), "/sys/fs/cgroup");
}

TEST(CgroupFindMore, KeepsTheNearestLevelsOfADeepTree) {
  TemporaryTree tree;
  tree.WriteContainer("max\n", "4096\n");
  std::string path;
  for (int i = 0; i < 40; ++i) path += "/d" + std::to_string(i);
  tree.Write("self/cgroup", "0::" + path + "\n");
  tree.Write("sys/fs/cgroup" + path + "/memory.current", "4096\n");
  EXPECT_EQ(tree.Find(), Version::kV2);
  EXPECT_EQ(tree.controller.levels(), kMaxLevels);
  EXPECT_EQ(tree.Directory(), "/sys/fs/cgroup" + path);
}

TEST(CgroupFindMore, StaysWithTheMountWhenThePathIsTooLong) {
  TemporaryTree tree;
  tree.WriteContainer("67108864\n", "4096\n");
  tree.Write("self/cgroup", "0::/" + std::string(4090, 'x') + "\n");
  EXPECT_EQ(tree.Find(), Version::kV2);
  EXPECT_EQ(tree.Directory(), "/sys/fs/cgroup");
}

TEST(CgroupFindMore, NoticesThatTheProcessWasMoved) {
  TemporaryTree tree;
  tree.WriteContainer("67108864\n", "4096\n");
  tree.Find();
  EXPECT_FALSE(tree.controller.Moved());
  tree.Write("self/cgroup", "0::/elsewhere\n");
  EXPECT_TRUE(tree.controller.Moved());
  tree.Write("sys/fs/cgroup/elsewhere/memory.current", "8192\n");
  tree.Find();
  EXPECT_FALSE(tree.controller.Moved());
  EXPECT_EQ(tree.Directory(), "/sys/fs/cgroup/elsewhere");
}

TEST(CgroupFindMore, HasReasonableSize) { EXPECT_LE(sizeof(MemoryController), 6 << 10); }

}  // namespace
}  // namespace heapflare::cgroup
