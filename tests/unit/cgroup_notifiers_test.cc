#include <errno.h>
#include <grp.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gtest/gtest.h"
#include "lib/cgroup/notifiers.h"
#include "tests/unit/cgroup_fixture.h"

namespace heapflare::cgroup {
namespace {

TEST(CgroupNotifiers, AreThoseOfTheVersion) {
  // Not the fixtures of testdata: in somebody else's checkout they cannot be written.
  TemporaryTree v1;
  v1.Write("self/mountinfo", "75 71 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
  v1.Write("self/cgroup", "4:memory:/\n");
  v1.Write("sys/fs/cgroup/memory/memory.usage_in_bytes", "4096\n");
  v1.Write("sys/fs/cgroup/memory/cgroup.event_control", "");
  ASSERT_EQ(v1.Find(), Version::kV1);
  const Notifiers on_v1 = ProbeNotifiers(v1.controller, v1.roots());
  EXPECT_TRUE(on_v1.threshold.usable);
  EXPECT_EQ(on_v1.threshold.error, 0);
  EXPECT_FALSE(on_v1.events.usable);
  EXPECT_EQ(on_v1.events.error, -EOPNOTSUPP);
  EXPECT_EQ(on_v1.cgroup_pressure.error, -EOPNOTSUPP);
  EXPECT_EQ(on_v1.node_pressure.error, -ENOENT);

  TemporaryTree v2;
  v2.WriteContainer("67108864\n", "4096\n");
  v2.Write("sys/fs/cgroup/memory.events", "oom 0\n");
  v2.Write("sys/fs/cgroup/memory.pressure", "some avg10=0.00\n");
  ASSERT_EQ(v2.Find(), Version::kV2);
  const Notifiers on_v2 = ProbeNotifiers(v2.controller, v2.roots());
  EXPECT_FALSE(on_v2.threshold.usable);
  EXPECT_EQ(on_v2.threshold.error, -EOPNOTSUPP);
  EXPECT_TRUE(on_v2.events.usable);
  EXPECT_TRUE(on_v2.cgroup_pressure.usable);

  Fixture none("none");
  const Notifiers without = ProbeNotifiers(none.controller, none.roots());
  EXPECT_FALSE(without.threshold.usable || without.events.usable || without.cgroup_pressure.usable);
}

TEST(CgroupNotifiers, SayWhatPermissionIsMissing) {
  TemporaryTree tree;
  tree.WriteContainer("67108864\n", "4096\n");
  tree.Write("sys/fs/cgroup/memory.events", "oom 0\n");
  tree.Write("sys/fs/cgroup/memory.pressure", "some avg10=0.00\n");
  tree.Write("pressure", "some avg10=0.00\n");
  chmod((tree.root() / "sys/fs/cgroup/memory.pressure").c_str(), 0444);
  chmod((tree.root() / "pressure").c_str(), 0666);
  const pid_t child = fork();
  if (child == 0) {
    if (geteuid() == 0 &&
        (setgroups(0, nullptr) != 0 || setgid(65534) != 0 || setuid(65534) != 0)) {
      _exit(99);
    }
    tree.Find();
    const Notifiers found = ProbeNotifiers(tree.controller, tree.roots());
    int wrong = 0;
    wrong |= found.events.usable ? 0 : 1;
    wrong |= found.cgroup_pressure.error == -EACCES ? 0 : 2;
    wrong |= found.cgroup_pressure.usable ? 4 : 0;
    wrong |= found.node_pressure.usable ? 0 : 8;
    _exit(wrong);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  if (WEXITSTATUS(status) == 99) GTEST_SKIP() << "this root may not become another user";
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace heapflare::cgroup
