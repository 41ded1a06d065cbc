// A tree of files in the place of /proc/self, /proc/meminfo and the mounted cgroups; rewritten for
// each input without being opened anew, goes at the end of the process.
#pragma once

#include <filesystem>
#include <map>

#include "lib/cgroup/controller.h"
#include "tests/fuzz/fuzz_target.h"

namespace heapflare::fuzz {

class FileTree {
 public:
  FileTree() {
    // On tmpfs, where there is one.
    std::string name = std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : "/tmp";
    name += "/heapflare-fuzz-XXXXXX";
    Require(mkdtemp(name.data()) != nullptr, "a temporary directory can be made");
    root_ = name;
    self_ = root_ + "/self";
    meminfo_ = root_ + "/meminfo";
  }
  ~FileTree() {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }
  FileTree(const FileTree&) = delete;
  FileTree& operator=(const FileTree&) = delete;

  const std::string& root() const { return root_; }
  cgroup::Roots roots() const {
    return {self_.c_str(), meminfo_.c_str(), "/nonexistent", root_.c_str()};
  }

  void Write(const std::string& file, std::string_view content) {
    int& fd = files_.try_emplace(file, -1).first->second;
    if (fd < 0) {
      const std::filesystem::path path = std::filesystem::path(root_) / file;
      std::filesystem::create_directories(path.parent_path());
      fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    }
    Require(
        fd >= 0 && ftruncate(fd, 0) == 0 &&
            pwrite(fd, content.data(), content.size(), 0) == static_cast<ssize_t>(content.size()),
        "a file of the tree can be written");
  }

 private:
  std::string root_;
  std::string self_;
  std::string meminfo_;
  std::map<std::string, int> files_;
};

}  // namespace heapflare::fuzz
