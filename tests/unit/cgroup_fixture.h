// Trees of real files in the place of /proc/self, /proc/meminfo and the mounted cgroups: those in
// testdata/cgroup, and ones that a test builds.
#pragma once

#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>

#include "gtest/gtest.h"
#include "lib/cgroup/controller.h"

namespace heapflare::cgroup {

inline constexpr uint64_t kMiB = 1 << 20;
// Of the meminfo that the fixtures share.
inline constexpr uint64_t kNodeTotal = 16'384'000 * uint64_t{1024};
inline constexpr uint64_t kNodeInUse = (16'384'000 - 12'288'000) * uint64_t{1024};

// A directory and a controller that looks nowhere else.
class Tree {
 public:
  explicit Tree(std::filesystem::path root) : root_(std::move(root)) {}
  ~Tree() { controller.Forget(); }
  Tree(const Tree&) = delete;
  Tree& operator=(const Tree&) = delete;

  Version Find() { return controller.Find(roots()); }
  Roots roots() const {
    return {self_.c_str(), meminfo_.c_str(), pressure_.c_str(), root_.c_str()};
  }
  // A level's directory as the fixture's author sees it.
  std::string Directory(int level = 0) const {
    const std::string_view directory = controller.directory(level);
    EXPECT_EQ(directory.substr(0, root_.native().size()), root_.native());
    return std::string(directory.substr(root_.native().size()));
  }
  const std::filesystem::path& root() const { return root_; }

  MemoryController controller;

 private:
  const std::filesystem::path root_;
  const std::string self_ = root_ / "self";
  const std::string meminfo_ = root_ / "meminfo";
  const std::string pressure_ = root_ / "pressure";
};

// One of testdata/cgroup, found.
class Fixture : public Tree {
 public:
  explicit Fixture(const std::string& name)
      : Tree(std::filesystem::path(HEAPFLARE_TESTDATA) / "cgroup" / name) {
    EXPECT_TRUE(std::filesystem::exists(root())) << root();
    Find();
  }
};

// A tree that the test may change; removed with it. Any user may read it.
class TemporaryTree : public Tree {
 public:
  TemporaryTree() : Tree(Make()) {}
  ~TemporaryTree() { std::filesystem::remove_all(root()); }

  // Replaces the file's content, as the kernel does: under the same inode.
  void Write(const std::string& file, std::string_view content) const {
    std::filesystem::create_directories((root() / file).parent_path());
    std::ofstream(root() / file, std::ios::binary) << content;
  }
  // A v2 container that sees only itself, not yet found.
  void WriteContainer(std::string_view limit, std::string_view usage) const {
    Write("self/mountinfo", "57 70 0:31 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
    Write("self/cgroup", "0::/\n");
    Write("meminfo", "MemTotal: 16384000 kB\nMemAvailable: 12288000 kB\n");
    Write("sys/fs/cgroup/memory.max", limit);
    Write("sys/fs/cgroup/memory.current", usage);
  }

 private:
  static std::filesystem::path Make() {
    std::string name = std::filesystem::temp_directory_path() / "heapflare-cgroup-XXXXXX";
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    chmod(name.c_str(), 0755);
    return name;
  }
};

}  // namespace heapflare::cgroup
