#include <string>

#include "gtest/gtest.h"
#include "lib/cgroup/mountinfo.h"

namespace heapflare::cgroup {
namespace {

std::string Decoded(std::string_view escaped) {
  base::Path path;
  AddDecoded(escaped, &path);
  return path.c_str();
}

// "no", or what is below.
std::string Below(std::string_view root, std::string_view path) {
  std::string_view below;
  return PathBelow(root, path, &below) ? std::string(below) : "no";
}

TEST(CgroupMountinfo, ReadsALineWhateverItsOptionalFields) {
  for (const std::string optional : {"", "shared:1 ", "shared:1 master:2 propagate_from:1 new "}) {
    const std::string line = "36 35 98:0 /a /b/c rw,noatime " + optional + "- cgroup src rw,memory";
    MountLine mount;
    ASSERT_TRUE(ParseMountLine(line, &mount));
    EXPECT_EQ(mount.root, "/a");
    EXPECT_EQ(mount.mount_point, "/b/c");
    EXPECT_EQ(mount.type, "cgroup");
    EXPECT_EQ(mount.super_options, "rw,memory");
  }
}

TEST(CgroupMountinfo, ReadsAnEmptySourceAndOptionsWithSpaces) {
  MountLine mount;
  ASSERT_TRUE(ParseMountLine("36 35 98:0 / /b rw - cgroup  rw,agent=/a - b,memory", &mount));
  EXPECT_EQ(mount.type, "cgroup");
  EXPECT_EQ(mount.super_options, "rw,agent=/a - b,memory");
}

TEST(CgroupMountinfo, RefusesALineThatIsCutAnywhere) {
  const std::string_view whole = "36 35 98:0 / /b rw shared:1 - cgroup2 none rw";
  MountLine mount;
  for (size_t length = 0; length < whole.size() - 2; ++length) {
    EXPECT_FALSE(ParseMountLine(whole.substr(0, length), &mount)) << length;
  }
  EXPECT_TRUE(ParseMountLine(whole, &mount));
}

TEST(CgroupMountinfo, DecodesOctalEscapesOnly) {
  EXPECT_EQ(Decoded("/a\\040b\\011c\\012d\\134e"), "/a b\tc\nd\\e");
  EXPECT_EQ(Decoded("/a\\04"), "/a\\04");
  EXPECT_EQ(Decoded("/a\\08x"), "/a\\08x");
  EXPECT_EQ(Decoded("\\"), "\\");
}

TEST(CgroupMountinfo, SplitsMembershipAtTheFirstTwoColons) {
  MembershipLine line;
  ASSERT_TRUE(ParseMembershipLine("4:cpu,memory:/a:b:/c d", &line));
  EXPECT_EQ(line.controllers, "cpu,memory");
  EXPECT_EQ(line.path, "/a:b:/c d");
  ASSERT_TRUE(ParseMembershipLine("0::/", &line));
  EXPECT_EQ(line.number, "0");
  EXPECT_EQ(line.controllers, "");
  EXPECT_EQ(line.path, "/");
  for (const char* bad : {"", "0", "0:", "0::", "0:memory:", "4:memory:relative"}) {
    EXPECT_FALSE(ParseMembershipLine(bad, &line)) << bad;
  }
}

TEST(CgroupMountinfo, FindsWholeItemsOfAListOnly) {
  EXPECT_TRUE(ListHas("rw,cpu,memory", "memory"));
  EXPECT_TRUE(ListHas("memory,rw", "memory"));
  EXPECT_FALSE(ListHas("rw,name=memory,memory2,xmemory,mem", "memory"));
  EXPECT_FALSE(ListHas("", "memory"));
}

TEST(CgroupMountinfo, TakesAPathRelativeToTheMountsRoot) {
  EXPECT_EQ(Below("/", "/"), "");
  EXPECT_EQ(Below("/", "/a/b"), "/a/b");
  EXPECT_EQ(Below("/a/b", "/a/b"), "");
  EXPECT_EQ(Below("/a/b", "/a/b/c"), "/c");
  EXPECT_EQ(Below("/a\\040b", "/a b/c"), "/c");
  EXPECT_EQ(Below("/a/b", "/a/bc"), "no");
  EXPECT_EQ(Below("/a/b", "/a"), "no");
  EXPECT_EQ(Below("/a", "/x"), "no");
  EXPECT_EQ(Below("/", ""), "no");
}

TEST(CgroupMountinfo, NeverGoesAboveTheMountsRoot) {
  EXPECT_EQ(Below("/", "/.."), "no");
  EXPECT_EQ(Below("/", "/../../x"), "no");
  EXPECT_EQ(Below("/..", "/../.."), "no");
  EXPECT_EQ(Below("/../..", "/"), "no");
  EXPECT_EQ(Below("/..", "/../x"), "/x");
  EXPECT_EQ(Below("/../..", "/../.."), "");
  EXPECT_EQ(Below("/", "/..a/b.."), "/..a/b..");
}

}  // namespace
}  // namespace heapflare::cgroup
