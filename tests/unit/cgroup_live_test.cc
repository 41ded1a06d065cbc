// Against this machine's own kernel.
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <string>

#include "gtest/gtest.h"
#include "lib/cgroup/notifiers.h"
#include "tests/unit/cgroup_fixture.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HEAPFLARE_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HEAPFLARE_SANITIZED 1
#endif
#endif

namespace heapflare::cgroup {
namespace {

TEST(CgroupLive, ReadsThisProcess) {
  MemoryController controller;
  controller.Find();
  const Limit limit = controller.ReadLimit();
  EXPECT_NE(limit.source, LimitSource::kNone);
  EXPECT_GT(limit.lowest.bytes, kMiB);
  EXPECT_FALSE(controller.Moved());
  uint64_t usage = 0;
  EXPECT_EQ(controller.ReadUsage(limit.nearest.level, &usage), 0);
  EXPECT_GT(usage, 0u);
  ProbeNotifiers(controller);
  if (controller.version() == Version::kNone) GTEST_SKIP() << controller.reason();
  MemoryStat stat;
  EXPECT_EQ(controller.ReadStat(0, &stat), 0);
  EXPECT_NE(stat.anon, kUnknown);
  EXPECT_NE(stat.inactive_file, kUnknown);
  controller.Forget();
}

// A memory cgroup of its own on v1, for a child that goes in.
class CgroupV1 : public testing::Test {
 protected:
  void SetUp() override {
    MemoryController controller;
    const Version version = controller.Find();
    const std::string root(controller.directory(controller.levels() - 1));
    controller.Forget();
    if (version != Version::kV1) GTEST_SKIP() << "memory is not on cgroup v1 here";
    directory_ = root + "/heapflare-test-" + std::to_string(getpid());
    if (mkdir(directory_.c_str(), 0755) != 0) GTEST_SKIP() << directory_ << ": " << strerror(errno);
    made_ = true;
    if (!Write("memory.limit_in_bytes", "268435456")) GTEST_SKIP() << "cannot set a limit";
  }
  void TearDown() override {
    // The last process may still be on its way out.
    for (int i = 0; made_ && rmdir(directory_.c_str()) != 0 && i < 100; ++i) usleep(10'000);
  }
  bool Write(const std::string& file, const std::string& text) const {
    std::ofstream out(directory_ + "/" + file);
    return static_cast<bool>(out << text << std::flush);
  }
  // Exit status of `body` in a child in the cgroup.
  int Inside(const std::function<int()>& body) const {
    const pid_t child = fork();
    if (child == 0) _exit(Write("cgroup.procs", std::to_string(getpid())) ? body() : 98);
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  std::string directory_;
  bool made_ = false;
};

TEST_F(CgroupV1, ShowsWhatIsTouchedAndALimitThatChanges) {
  const int result = Inside([this] {
    MemoryController controller;
    controller.Find();
    if (controller.directory() != directory_) return 1;
    const Limit limit = controller.ReadLimit();
    if (limit.source != LimitSource::kCgroup || limit.lowest.bytes != 256 * kMiB) return 2;
    uint64_t before = 0;
    if (controller.ReadUsage(0, &before) != 0) return 3;
    constexpr size_t kBytes = 64 * kMiB;
    // Touched by the kernel: a sanitizer's shadow memory would be charged as well.
    mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1,
         0);
    uint64_t after = 0;
    if (controller.ReadUsage(0, &after) != 0) return 4;
    // The charge is counted in batches of 64 pages for each CPU.
    if (after < before + 60 * kMiB || after > before + 80 * kMiB) return 5;
    MemoryStat stat;
    if (controller.ReadStat(0, &stat) != 0 || stat.anon < 60 * kMiB) return 6;
    if (WorkingSet(after, stat) < 60 * kMiB) return 7;
    MemoryEvents events;
    if (controller.ReadEvents(0, &events) != 0 || events.oom_kill != 0) return 8;
    if (!Write("memory.limit_in_bytes", "134217728")) return 9;
    if (controller.ReadLimit().lowest.bytes != 128 * kMiB) return 10;
    if (!Write("memory.limit_in_bytes", "-1")) return 11;
    if (controller.ReadLimit().lowest.bytes == 128 * kMiB) return 12;
    return 0;
  });
  EXPECT_EQ(result, 0);
}

TEST_F(CgroupV1, CountsAKilledChild) {
  const int result = Inside([] {
    MemoryController controller;
    controller.Find();
    // The child must be the one that is killed.
    const pid_t child = fork();
    if (child == 0) {
      std::ofstream("/proc/self/oom_score_adj") << "1000" << std::flush;
      constexpr size_t kBytes = 512 * kMiB;
      void* const memory =
          mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      memset(memory, 1, kBytes);
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) return 1;
    MemoryEvents events;
    if (controller.ReadEvents(0, &events) != 0 || events.oom_kill != 1) return 2;
    return events.max > 0 && events.max != kUnknown ? 0 : 3;
  });
  EXPECT_EQ(result, 0);
}

TEST_F(CgroupV1, IsFoundByAThreadThatOutlivesMain) {
  struct Shared {
    int same;
    int done;
  };
  auto* const shared = static_cast<Shared*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  static std::string expected;
  static Shared* result;
  expected = directory_;
  result = shared;
  const int status = Inside([] {
    pthread_t thread;
    pthread_create(
        &thread, nullptr,
        [](void*) -> void* {
          // Until the main thread is a zombie: then its own view of the mounts is gone.
          const std::string path = "/proc/" + std::to_string(getpid()) + "/mountinfo";
          for (int i = 0; i < 500 && std::ifstream(path).peek() != EOF; ++i) usleep(1000);
          static MemoryController controller;
          controller.Find();
          result->same = controller.directory() == expected;
          result->done = 1;
          _exit(0);
        },
        nullptr);
    syscall(SYS_exit, 0);
    return 97;
  });
  EXPECT_EQ(status, 0);
  EXPECT_EQ(shared->done, 1);
  EXPECT_EQ(shared->same, 1);
  munmap(shared, 4096);
}

TEST_F(CgroupV1, ReportsACgroupThatIsGone) {
  // A process cannot be in a removed cgroup, but one may be moved out, and the cgroup removed.
  const int result = Inside([this] {
    static MemoryController controller;
    controller.Find();
    uint64_t usage = 0;
    if (controller.ReadUsage(0, &usage) != 0) return 1;
    std::ofstream out(directory_ + "/../cgroup.procs");
    if (!(out << getpid() << std::flush)) return 2;
    if (!controller.Moved()) return 3;
    for (int i = 0; rmdir(directory_.c_str()) != 0; ++i) {
      if (i == 100) return 4;
      usleep(10'000);
    }
    const int error = controller.ReadUsage(0, &usage);
    if (error != -ENOENT && error != -ENODEV) return 5;
    controller.Find();
    return controller.ReadUsage(0, &usage) == 0 && !controller.Moved() ? 0 : 6;
  });
  EXPECT_EQ(result, 0);
}

#ifndef HEAPFLARE_SANITIZED
// How much of a painted stack `body` has touched.
size_t StackUse(void (*body)()) {
  constexpr size_t kBytes = 64 << 10;
  alignas(64) static unsigned char stack[kBytes];
  static ucontext_t back;
  static ucontext_t there;
  memset(stack, 0xa5, kBytes);
  getcontext(&there);
  there.uc_stack.ss_sp = stack;
  there.uc_stack.ss_size = kBytes;
  there.uc_link = &back;
  makecontext(&there, body, 0);
  swapcontext(&back, &there);
  return static_cast<size_t>(
      std::end(stack) - std::find_if(stack, std::end(stack), [](auto c) { return c != 0xa5; }));
}

MemoryController watched;

TEST(CgroupStack, IsLittle) {
  const size_t empty = StackUse([] {});
  EXPECT_LE(StackUse([] { watched.Find(); }) - empty, 9u << 10);
  EXPECT_LE(StackUse([] { watched.Moved(); }) - empty, 9u << 10);
  EXPECT_LE(StackUse([] { watched.ReadLimit(); }) - empty, 5u << 10);
  EXPECT_LE(StackUse([] {
              MemoryStat stat;
              watched.ReadStat(0, &stat);
            }) - empty,
            5u << 10);
  uint64_t usage = 0;
  // The root of v2 has none.
  if (watched.ReadUsage(0, &usage) == 0) {
    EXPECT_LE(StackUse([] {
                uint64_t again;
                watched.ReadUsage(0, &again);
              }) - empty,
              1u << 10)
        << "the kept descriptor is not used";
  }
  watched.Forget();
}
#endif

}  // namespace
}  // namespace heapflare::cgroup
