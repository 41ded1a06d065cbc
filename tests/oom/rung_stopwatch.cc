// Watches a memory cgroup and the directory of the dumps from outside, and says when what happened:
//
//   rung_stopwatch CGROUP DIRECTORY PERIOD_US BYTES…
//
// prints, with CLOCK_MONOTONIC in ns, one line each time:
//   crossed BYTES TIME      the working set was seen at BYTES or more for the first time
//   file NAME TIME          a file got its final name in DIRECTORY
// and, once its standard input has ended, "highest BYTES GAP": the largest working set that was seen,
// and the longest time, ns, in which it got no processor to look.
#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <string_view>
#include <vector>

namespace {

long long Now() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}

// A file of the cgroup, kept open; empty once the cgroup is gone.
class File {
 public:
  explicit File(const std::string& path) : descriptor_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  bool exists() const { return descriptor_ >= 0; }
  // Zero-terminated.
  const char* Read() {
    const ssize_t bytes = pread(descriptor_, text_, sizeof(text_) - 1, 0);
    text_[bytes > 0 ? bytes : 0] = 0;
    return text_;
  }

 private:
  int descriptor_;
  char text_[8192];
};

// As the rungs do: page cache that can be dropped does not count.
uint64_t PageCache(File& stat, bool v2) {
  const char* text = stat.Read();
  uint64_t sum = 0;
  for (const char* key : {"\ninactive_file ", "\nactive_file "}) {
    const std::string name = v2 ? key : "\ntotal_" + std::string(key + 1);
    const char* at = std::strstr(text, name.c_str());
    if (at != nullptr) sum += std::strtoull(at + name.size(), nullptr, 10);
  }
  return sum;
}

void PrintFiles(int notifications) {
  alignas(inotify_event) char buffer[8192];
  ssize_t bytes = 0;
  while ((bytes = read(notifications, buffer, sizeof(buffer))) > 0) {
    const long long now = Now();
    for (ssize_t at = 0; at < bytes;) {
      const auto* event = reinterpret_cast<const inotify_event*>(buffer + at);
      std::printf("file %s %lld\n", event->len != 0 ? event->name : "?", now);
      at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: rung_stopwatch CGROUP DIRECTORY PERIOD_US BYTES...\n");
    return 2;
  }
  const std::string cgroup = argv[1];
  const bool v2 = access((cgroup + "/memory.current").c_str(), F_OK) == 0;
  File usage(cgroup + (v2 ? "/memory.current" : "/memory.usage_in_bytes"));
  File stat(cgroup + "/memory.stat");
  const int notifications = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (!usage.exists() || !stat.exists() ||
      inotify_add_watch(notifications, argv[2], IN_MOVED_TO) < 0) {
    std::fprintf(stderr, "rung_stopwatch: %s or %s: %s\n", argv[1], argv[2], std::strerror(errno));
    return 3;
  }
  const long period = std::strtol(argv[3], nullptr, 10) * 1000;
  std::vector<uint64_t> thresholds;
  for (int i = 4; i < argc; ++i) thresholds.push_back(std::strtoull(argv[i], nullptr, 10));
  std::sort(thresholds.begin(), thresholds.end());
  std::printf("ready\n");
  std::fflush(stdout);

  size_t next = 0;
  uint64_t highest = 0;
  long long longest_gap = 0;
  long long last = Now();
  while (true) {
    pollfd wait[] = {{STDIN_FILENO, POLLIN, 0}, {notifications, POLLIN, 0}};
    const timespec timeout = {0, period};
    ppoll(wait, 2, &timeout, nullptr);
    PrintFiles(notifications);
    if (wait[0].revents != 0) break;
    uint64_t value = std::strtoull(usage.Read(), nullptr, 10);
    const long long now = Now();
    longest_gap = std::max(longest_gap, now - last);
    last = now;
    if (value > highest) value -= std::min(value, PageCache(stat, v2));
    highest = std::max(highest, value);
    while (next < thresholds.size() && value >= thresholds[next]) {
      std::printf("crossed %llu %lld\n", static_cast<unsigned long long>(thresholds[next++]), now);
    }
  }
  std::printf("highest %llu %lld\n", static_cast<unsigned long long>(highest), longest_gap);
  return 0;
}
