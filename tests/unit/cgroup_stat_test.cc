#include <errno.h>

#include <string>

#include "gtest/gtest.h"
#include "lib/cgroup/node.h"
#include "lib/cgroup/stat.h"
#include "tests/unit/cgroup_fixture.h"

namespace heapflare::cgroup {
namespace {

TEST(CgroupValues, ReadNumbersUpToTheLargest) {
  uint64_t bytes = 0;
  EXPECT_TRUE(ParseBytes("0\n", &bytes));
  EXPECT_EQ(bytes, 0u);
  EXPECT_TRUE(ParseBytes(" 9223372036854775808 ", &bytes));  // INT64_MAX + 1
  EXPECT_EQ(bytes, uint64_t{1} << 63);
  EXPECT_TRUE(ParseBytes("18446744073709551615", &bytes));
  EXPECT_EQ(bytes, UINT64_MAX);
  EXPECT_TRUE(ParseBytes("18446744073709551616", &bytes));
  EXPECT_EQ(bytes, UINT64_MAX);
  for (const char* bad :
       {"", "\n", "max", "-1", "+1", "1 2", "12k", "0x10", "99999999999999999999x"}) {
    EXPECT_FALSE(ParseBytes(bad, &bytes)) << bad;
  }
}

TEST(CgroupValues, KnowEveryWayToSayNoLimit) {
  uint64_t bytes = 0;
  for (const char* text : {"max\n", "-1", "9223372036854771712", "9223372036854710272",
                           "9223372036854775807", "18446744073709551615", "99999999999999999999"}) {
    EXPECT_TRUE(ParseLimit(text, &bytes)) << text;
    EXPECT_EQ(bytes, kUnlimited) << text;
  }
  EXPECT_TRUE(ParseLimit("4398046511104\n", &bytes));
  EXPECT_EQ(bytes, uint64_t{4} << 40);
  for (const char* bad : {"", "maximum", "-2", "none"}) {
    EXPECT_FALSE(ParseLimit(bad, &bytes)) << bad;
  }
}

TEST(CgroupStat, ReadsV1WithAllBelow) {
  Fixture fixture("v1_cgroupns");
  MemoryStat stat;
  ASSERT_EQ(fixture.controller.ReadStat(0, &stat), 0);
  EXPECT_EQ(stat.anon, 327680u);
  EXPECT_EQ(stat.file, 3 * kMiB);
  EXPECT_EQ(stat.shmem, 65536u);
  EXPECT_EQ(stat.kernel, 1234567u);
  EXPECT_EQ(stat.inactive_file, 2 * kMiB);
  EXPECT_EQ(stat.hierarchical_limit, 64 * kMiB);
  MemoryStat hidden;
  EXPECT_EQ(fixture.controller.ReadStat(kHiddenLevel, &hidden), 0);
  EXPECT_EQ(hidden.anon, stat.anon);
}

TEST(CgroupStat, TakesV1WithoutTotalsAsItIs) {
  MemoryStat stat;
  ASSERT_EQ(Fixture("v1_host_path").controller.ReadStat(0, &stat), 0);
  EXPECT_EQ(stat.anon, 327680u);
  EXPECT_EQ(stat.inactive_file, kUnknown);
  EXPECT_EQ(stat.kernel, kUnknown);
}

TEST(CgroupStat, ReadsV2) {
  MemoryStat stat;
  ASSERT_EQ(Fixture("v2_cgroupns").controller.ReadStat(0, &stat), 0);
  EXPECT_EQ(stat.anon, 331776u);
  EXPECT_EQ(stat.file, 2 * kMiB);
  EXPECT_EQ(stat.shmem, kMiB);
  EXPECT_EQ(stat.kernel, 507904u + 4096);
  EXPECT_EQ(stat.inactive_file, 524288u);
}

TEST(CgroupStat, AddsUpTheKernelsPartsBeforeLinux518) {
  Fixture fixture("v2_kernel_5_10");
  MemoryStat stat;
  ASSERT_EQ(fixture.controller.ReadStat(0, &stat), 0);
  EXPECT_EQ(stat.kernel, 288688u + 49152 + 1184 + 4096);
  MemoryEvents events;
  ASSERT_EQ(fixture.controller.ReadEvents(0, &events), 0);
  EXPECT_EQ(events.oom_kill, 1u);
  EXPECT_EQ(events.oom_group_kill, kUnknown);
}

TEST(CgroupStat, PassesOverWhatIsNotANumber) {
  Fixture fixture("v2_garbage");
  MemoryStat stat;
  ASSERT_EQ(fixture.controller.ReadStat(0, &stat), 0);
  EXPECT_EQ(stat.anon, kUnknown);
  EXPECT_EQ(stat.file, kUnknown);
  EXPECT_EQ(stat.shmem, kUnknown);
  EXPECT_EQ(stat.kernel, kUnknown);
  EXPECT_EQ(stat.inactive_file, 12u);
  MemoryEvents events;
  ASSERT_EQ(fixture.controller.ReadEvents(0, &events), 0);
  EXPECT_EQ(events.oom_kill, kUnknown);
  EXPECT_EQ(events.max, kUnknown);
  uint64_t usage = 0;
  EXPECT_EQ(fixture.controller.ReadUsage(0, &usage), -EINVAL);
}

TEST(CgroupStat, SaysWhyThereIsNone) {
  MemoryStat stat;
  MemoryEvents events;
  Fixture directory("v2_limit_is_directory");
  uint64_t usage = 0;
  EXPECT_EQ(directory.controller.ReadUsage(0, &usage), -EISDIR);
  EXPECT_EQ(directory.controller.ReadStat(0, &stat), -EISDIR);
  EXPECT_EQ(directory.controller.ReadEvents(0, &events), -ENOENT);
  EXPECT_EQ(Fixture("none").controller.ReadStat(0, &stat), -ENOENT);
  EXPECT_EQ(Fixture("v2_cgroupns").controller.ReadStat(1, &stat), -ENOENT);
}

TEST(CgroupStat, WorkingSetLeavesOutAllPageCacheThatCanBeDropped) {
  MemoryStat stat;
  stat.inactive_file = 30;
  stat.active_file = 50;
  stat.file = 90;  // the rest is shmem, which nothing can drop
  EXPECT_EQ(WorkingSet(100, stat), 20u);
}

TEST(CgroupStat, WorkingSetNeverGoesBelowZero) {
  MemoryStat stat;
  EXPECT_EQ(WorkingSet(100, stat), 100u);
  stat.inactive_file = 30;
  EXPECT_EQ(WorkingSet(100, stat), 70u);
  EXPECT_EQ(WorkingSet(kUnknown, stat), kUnknown);
  stat.inactive_file = 101;
  EXPECT_EQ(WorkingSet(100, stat), 0u);
}

TEST(CgroupEvents, ReadsV2AndSkipsUnknownKeys) {
  MemoryEvents events;
  ASSERT_EQ(Fixture("v2_cgroupns").controller.ReadEvents(0, &events), 0);
  EXPECT_EQ(events.low, 1u);
  EXPECT_EQ(events.high, 2u);
  EXPECT_EQ(events.max, 39u);
  EXPECT_EQ(events.oom, 3u);
  EXPECT_EQ(events.oom_kill, 4u);
  EXPECT_EQ(events.oom_group_kill, 5u);
}

TEST(CgroupEvents, ReadsV1) {
  MemoryEvents events;
  ASSERT_EQ(Fixture("v1_cgroupns").controller.ReadEvents(0, &events), 0);
  EXPECT_EQ(events.oom_kill, 3u);
  EXPECT_EQ(events.max, 17u);
  EXPECT_EQ(events.oom, kUnknown);
}

TEST(CgroupNode, ReadsMeminfo) {
  Fixture fixture("none");
  NodeMemory node;
  ASSERT_EQ(ReadNodeMemory(fixture.roots().meminfo, &node), 0);
  EXPECT_EQ(node.total, kNodeTotal);
  EXPECT_EQ(node.in_use(), kNodeInUse);
  MemoryStat stat;
  ASSERT_EQ(fixture.controller.ReadStat(kNodeLevel, &stat), 0);
  EXPECT_EQ(stat.anon, 3'000'000u * 1024);
  EXPECT_EQ(stat.file, 2'100'000u * 1024);
  EXPECT_EQ(stat.shmem, 50'000u * 1024);
  EXPECT_EQ(stat.kernel, 370'000u * 1024);
  EXPECT_EQ(WorkingSet(node.in_use(), stat), kNodeInUse);
}

TEST(CgroupNode, SaysWhyNot) {
  NodeMemory node;
  EXPECT_EQ(ReadNodeMemory("/nowhere", &node), -ENOENT);
  EXPECT_EQ(ReadNodeMemory("/dev/null", &node), -EINVAL);
  uint64_t usage = 0;
  EXPECT_EQ(Fixture("no_proc").controller.ReadUsage(kNodeLevel, &usage), -ENOENT);
  EXPECT_EQ(Fixture("cut_mountinfo").controller.ReadUsage(kNodeLevel, &usage), -EINVAL);
}

}  // namespace
}  // namespace heapflare::cgroup
