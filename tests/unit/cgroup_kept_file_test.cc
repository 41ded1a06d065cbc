// The descriptor that stays open in a service that does with descriptors what it likes.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "lib/cgroup/kept_file.h"
#include "tests/unit/cgroup_fixture.h"

namespace heapflare::cgroup {
namespace {

std::set<int> OpenDescriptors() {
  std::set<int> all;
  DIR* const directory = opendir("/proc/self/fd");
  const int own = dirfd(directory);
  while (const dirent* entry = readdir(directory)) {
    const int fd = atoi(entry->d_name);
    if (entry->d_name[0] != '.' && fd != own) all.insert(fd);
  }
  closedir(directory);
  return all;
}

class CgroupKeptFile : public testing::Test {
 protected:
  CgroupKeptFile() : before_(OpenDescriptors()) {
    tree_.WriteContainer("67108864\n", "4096\n");
    tree_.Find();
  }
  ~CgroupKeptFile() {
    tree_.controller.Forget();
    EXPECT_EQ(OpenDescriptors(), before_);
  }
  // What the controller has open, -1 for nothing.
  int Kept() const {
    for (const int fd : OpenDescriptors()) {
      if (before_.count(fd) == 0) return fd;
    }
    return -1;
  }
  uint64_t Usage() {
    uint64_t usage = kUnknown;
    EXPECT_EQ(tree_.controller.ReadUsage(0, &usage), 0);
    return usage;
  }

  const std::set<int> before_;
  TemporaryTree tree_;
};

TEST_F(CgroupKeptFile, IsReadAgainWithoutBeingOpenedAgain) {
  const int fd = Kept();
  ASSERT_GE(fd, 0);
  // Out of the path's reach: only the descriptor still leads there.
  ASSERT_EQ(rename((tree_.root() / "sys/fs/cgroup/memory.current").c_str(),
                   (tree_.root() / "moved").c_str()),
            0);
  tree_.Write("moved", "8192\n");
  EXPECT_EQ(Usage(), 8192u);
  EXPECT_EQ(Kept(), fd);
}

TEST_F(CgroupKeptFile, LiesHighAndClosesOnExec) {
  const int fd = Kept();
  rlimit limit;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_GE(fd, static_cast<int>(std::min<rlim_t>(limit.rlim_cur, 1024)) / 2);
  EXPECT_LT(fd, KeptFile::kTableSize);
  EXPECT_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
}

TEST_F(CgroupKeptFile, IsOpenedAgainAfterTheServiceClosedIt) {
  ASSERT_EQ(close(Kept()), 0);
  tree_.Write("sys/fs/cgroup/memory.current", "12288\n");
  EXPECT_EQ(Usage(), 12288u);
  EXPECT_GE(Kept(), 0);
}

TEST_F(CgroupKeptFile, BelievesNothingThatTheServicePutInItsPlaceAndLeavesItOpen) {
  tree_.Write("other", "999\n");  // parses
  const int fd = Kept();
  const int other = open((tree_.root() / "other").c_str(), O_RDONLY);
  ASSERT_EQ(dup2(other, fd), fd);
  EXPECT_EQ(Usage(), 4096u);
  tree_.controller.Forget();
  EXPECT_NE(fcntl(fd, F_GETFD), -1) << "closed a descriptor of the service";
  char text[8] = {};
  EXPECT_EQ(read(fd, text, sizeof(text)), 4) << "moved its offset";
  close(fd);
  close(other);
}

TEST_F(CgroupKeptFile, ForgettingClosesNothingOfTheService) {
  const int fd = Kept();
  const int other = open("/dev/null", O_RDONLY);
  ASSERT_EQ(dup2(other, fd), fd);
  tree_.controller.Forget();
  EXPECT_EQ(close(fd), 0);
  close(other);
}

TEST_F(CgroupKeptFile, TakesNothingOutOfADeviceInItsPlace) {
  const int fd = Kept();
  const int event = eventfd(7, EFD_NONBLOCK);
  ASSERT_EQ(dup2(event, fd), fd);
  EXPECT_EQ(Usage(), 4096u);
  uint64_t count = 0;
  EXPECT_EQ(read(event, &count, sizeof(count)), 8);
  EXPECT_EQ(count, 7u);
  close(fd);
  close(event);
}

TEST_F(CgroupKeptFile, FollowsACgroupThatWasMadeAnew) {
  const std::string file = tree_.root() / "sys/fs/cgroup/memory.current";
  tree_.Write("new", "20480\n");
  ASSERT_EQ(close(Kept()), 0);
  ASSERT_EQ(rename((tree_.root() / "new").c_str(), file.c_str()), 0);
  EXPECT_EQ(Usage(), 20480u);
  // Without content the kept one is no good; the path decides.
  tree_.Write("sys/fs/cgroup/memory.current", "");
  uint64_t usage = 0;
  EXPECT_EQ(tree_.controller.ReadUsage(0, &usage), -EINVAL);
  std::filesystem::remove(file);
  EXPECT_EQ(tree_.controller.ReadUsage(0, &usage), -ENOENT);
  tree_.Write("sys/fs/cgroup/memory.current", "24576\n");
  EXPECT_EQ(Usage(), 24576u);
}

TEST_F(CgroupKeptFile, IsNotKeptLowRatherThanInTheWay) {
  rlimit limit;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  tree_.controller.Forget();
  const rlimit small = {9, limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &small), 0);
  tree_.Find();
  uint64_t usage = 0;
  const int error = tree_.controller.ReadUsage(0, &usage);
  const rlimit middle = {64, limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &middle), 0);
  EXPECT_EQ(Kept(), -1);
  EXPECT_EQ(Usage(), 4096u);
  EXPECT_EQ(Kept(), 62);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  // With 9 descriptors even opening may fail; then it says so.
  EXPECT_TRUE(error == 0 || error == -EMFILE) << error;
}

TEST_F(CgroupKeptFile, IsTheChildsOwnAfterForkAndFind) {
  const int fd = Kept();
  const pid_t child = fork();
  if (child == 0) {
    uint64_t usage = 0;
    tree_.Find();
    _exit(tree_.controller.ReadUsage(0, &usage) == 0 && usage == 4096 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(Kept(), fd);
}

// Run under the thread sanitizer as well.
TEST_F(CgroupKeptFile, SurvivesAServiceThatSweepsDescriptorsWhileThreadsRead) {
  tree_.Write("other", "999\n");
  const std::string other = tree_.root() / "other";
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> wrong = 0;
  std::atomic<uint64_t> reads = 0;
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        uint64_t usage = kUnknown;
        // A reader's own short-lived descriptor can be swept away as well: then there is an error,
        // but never a foreign number.
        if (tree_.controller.ReadUsage(0, &usage) == 0 && usage != 4096) ++wrong;
        ++reads;
      }
    });
  }
  const int source = open(other.c_str(), O_RDONLY);
  for (int round = 0; round < 3000; ++round) {
    // Only high numbers: the test's own files are low.
    for (int fd = 900; fd < KeptFile::kTableSize; ++fd) {
      if (fcntl(fd, F_GETFD) != -1) dup2(source, fd);
    }
    for (int fd = 900; fd < KeptFile::kTableSize; ++fd) {
      if (fcntl(fd, F_GETFD) != -1) close(fd);
    }
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  close(source);
  EXPECT_EQ(wrong, 0u);
  EXPECT_GT(reads, 1000u);
}

}  // namespace
}  // namespace heapflare::cgroup
