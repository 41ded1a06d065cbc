// What services do to themselves: descriptors, users, memory locks, namespaces. See program.h.
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/survival/program.h"

namespace survival {
namespace {

constexpr double kDeadline = 10;

std::vector<int> Entries(const char* directory) {
  std::vector<int> numbers;
  DIR* const listing = opendir(directory);
  CHECK(listing != nullptr);
  while (const dirent* entry = readdir(listing)) {
    const int number = atoi(entry->d_name);
    const bool own = strcmp(directory, "/proc/self/fd") == 0 && number == dirfd(listing);
    if (entry->d_name[0] != '.' && !own) numbers.push_back(number);
  }
  closedir(listing);
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

// --- Descriptors ---

void CloseFrom(int lowest, bool by_range) {
  if (by_range && syscall(SYS_close_range, lowest, ~0U, 0) == 0) return;
  const long limit = std::min(sysconf(_SC_OPEN_MAX), 65536L);
  for (int fd = lowest; fd < limit; ++fd) close(fd);
}

// The recorder may look at files at any moment: it does so in between all of this.
void ProvokeLooks() {
  Churn(20);
  usleep(20'000);
  void* volatile large = malloc(64 << 20);
  free(large);
  Churn(20);
}

// Closes all that it did not open, and then expects what every Unix program may: open returns the
// lowest number that is free.
int ClosesAll(int argc, char** argv) {
  const bool by_range = Number(argc, argv, 0, 1) != 0;
  ProvokeLooks();
  for (int round = 0; round < 5; ++round) {
    CloseFrom(3, by_range);
    ProvokeLooks();
    for (int expected = 3; expected < 12; ++expected) {
      CHECK(open("/dev/null", O_RDWR) == expected);
      Churn(3);
    }
    ProvokeLooks();
    close(0);
    Churn(3);
    CHECK(open("/dev/null", O_RDONLY) == 0);
  }
  CloseFrom(3, by_range);
  printf("lowest numbers as expected\n");
  return End();
}

// Puts a file of its own on every number, ours included, and finds in it only what it wrote.
int DupsOverAll(int, char**) {
  ProvokeLooks();
  char name[] = "/tmp/heapflare-survival-XXXXXX";
  const int file = mkstemp(name);
  CHECK(file >= 0);
  unlink(name);
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  const int highest = static_cast<int>(std::min<rlim_t>(limit.rlim_cur, 4096));
  for (int round = 0; round < 3; ++round) {
    for (int fd = 3; fd < highest; ++fd) CHECK(fd == file || dup2(file, fd) == fd);
    ProvokeLooks();
    CHECK(pwrite(file, "mine", 4, 0) == 4);
    ProvokeLooks();
    struct stat status = {};
    CHECK(fstat(file, &status) == 0 && status.st_size == 4);
    CHECK(lseek(file, 0, SEEK_CUR) == 0);
    // None of them was closed behind its back.
    for (int fd = 3; fd < highest; ++fd) CHECK(fcntl(fd, F_GETFD) >= 0);
    for (int fd = 3; fd < highest; ++fd) {
      if (fd != file) close(fd);
    }
  }
  printf("the file is as it was left\n");
  return End();
}

// What a child inherits, and what a scan of /proc/self/fd shows.
int ListsDescriptors(int, char**) {
  ProvokeLooks();
  std::string list;
  for (const int fd : Entries("/proc/self/fd")) {
    // Above the usual numbers the recorder keeps one, see the README.
    if (fd < 10) list += std::to_string(fd) + " ";
  }
  printf("descriptors %s\n", list.c_str());
  fflush(stdout);
  const int status = system("ls /proc/self/fd | tr '\\n' ' '");
  CHECK(status == 0);
  return 0;
}

// --- Threads that others count ---

int CountsThreads(int, char**) {
  pthread_t threads[3];
  static std::atomic<bool> stop = false;
  for (pthread_t& thread : threads) {
    CHECK(pthread_create(
              &thread, nullptr,
              [](void*) -> void* {
                while (!stop) usleep(1000);
                return nullptr;
              },
              nullptr) == 0);
  }
  Churn(100);
  usleep(50'000);
  int own = 0;
  int named = 0;
  for (const int thread : Entries("/proc/self/task")) {
    const std::string path = "/proc/self/task/" + std::to_string(thread) + "/comm";
    char name[32] = {};
    const int file = open(path.c_str(), O_RDONLY);
    CHECK(file >= 0 && read(file, name, sizeof(name) - 1) > 0);
    close(file);
    ++(strcmp(name, "heapflare\n") == 0 ? named : own);
  }
  stop = true;
  for (const pthread_t thread : threads) pthread_join(thread, nullptr);
  printf("threads %d\n", own);
  dprintf(2, "named heapflare: %d\n", named);
  return 0;
}

// --- Users ---

std::string CredentialsOf(int thread) {
  const std::string path = "/proc/self/task/" + std::to_string(thread) + "/status";
  FILE* const file = fopen(path.c_str(), "r");
  CHECK(file != nullptr);
  std::string result;
  char line[1024];
  while (fgets(line, sizeof(line), file) != nullptr) {
    for (const char* name : {"Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:"}) {
      if (strncmp(line, name, strlen(name)) == 0) result += line;
    }
  }
  fclose(file);
  return result;
}

// True once all threads, the recorder's too, have the credentials of the first.
bool AllAgree() {
  const std::string first = CredentialsOf(static_cast<int>(getpid()));
  for (const int thread : Entries("/proc/self/task")) {
    if (CredentialsOf(thread) != first) return false;
  }
  return true;
}

void ExpectAgreement(const char* after) {
  if (Await(kDeadline, AllAgree)) return;
  for (const int thread : Entries("/proc/self/task")) {
    dprintf(2, "thread %d:\n%s", thread, CredentialsOf(thread).c_str());
  }
  dprintf(2, "the threads' credentials differ %.0f s after %s\n", kDeadline, after);
  _exit(70);
}

constexpr uid_t kUser = 12345;
constexpr gid_t kGroups[] = {2001, 2002, 2003};

std::atomic<bool> stop = false;

// A thread that allocates now and then, until `stop`.
pthread_t StartChurning() {
  pthread_t thread;
  CHECK(pthread_create(
            &thread, nullptr,
            [](void*) -> void* {
              while (!stop) Churn(1), usleep(100);
              return nullptr;
            },
            nullptr) == 0);
  return thread;
}

int ChangesUser(int argc, char** argv) {
  const std::string how = argc > 0 ? argv[0] : "for_good";
  pthread_t threads[] = {StartChurning(), StartChurning()};
  Churn(50);
  usleep(50'000);
  if (how == "for_good") {
    CHECK(setgroups(3, kGroups) == 0 && setgid(kUser) == 0 && setuid(kUser) == 0);
    ExpectAgreement("setuid");
  } else if (how == "and_back") {
    std::vector<gid_t> before(64);
    before.resize(static_cast<size_t>(getgroups(64, before.data())));
    CHECK(setgroups(3, kGroups) == 0 && setegid(kUser) == 0 && seteuid(kUser) == 0);
    ExpectAgreement("seteuid");
    CHECK(seteuid(0) == 0 && setegid(0) == 0 && setgroups(before.size(), before.data()) == 0);
    ExpectAgreement("the way back");
  } else {
    // With capabilities kept, as servers that only need one of them do.
    CHECK(prctl(PR_SET_KEEPCAPS, 1) == 0);
    CHECK(setgroups(0, nullptr) == 0 && setgid(kUser) == 0 && setuid(kUser) == 0);
    // Only this thread has asked to keep them: so only one thread is compared with ours.
    stop = true;
    for (const pthread_t thread : threads) pthread_join(thread, nullptr);
    ExpectAgreement("setuid with capabilities kept");
  }
  stop = true;
  if (how != "keep_capabilities") {
    for (const pthread_t thread : threads) pthread_join(thread, nullptr);
  }
  printf("all threads agree\n");
  // The recorder looks twice more: what it has followed it must not follow for ever.
  if (argc > 1) usleep(static_cast<useconds_t>(atoi(argv[1])) * 1000);
  Churn(50);
  return End();
}

// --- Not dumpable, memory locked, another namespace ---

int NotDumpable(int, char**) {
  Churn(50);
  CHECK(prctl(PR_SET_DUMPABLE, 0) == 0);
  Churn(50);
  const pid_t child = fork();
  if (child == 0) {
    Churn(50);
    usleep(50'000);
    Churn(50);
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  usleep(50'000);
  for (int i = 0; i < 50; ++i) Allocate();
  printf("not dumpable\n");
  return End();
}

int LocksMemory(int argc, char** argv) {
  const int flags = Number(argc, argv, 0, MCL_CURRENT | MCL_FUTURE);
  Churn(20);
  const int result = mlockall(flags);
  const int error = errno;
  Churn(100);
  usleep(50'000);
  Churn(100);
  void* const map =
      mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  printf("mlockall %d, then mmap %s\n", result == 0 ? 0 : error,
         map == MAP_FAILED ? "failed" : "works");
  FILE* const file = fopen("/proc/self/status", "r");
  char line[256];
  while (file != nullptr && fgets(line, sizeof(line), file) != nullptr) {
    if (strncmp(line, "VmLck:", 6) == 0) dprintf(2, "%s", line);
  }
  return End();
}

int Unshares(int argc, char** argv) {
  const int flags = Number(argc, argv, 0, CLONE_NEWUSER);
  Churn(20);
  errno = 0;
  const int result = unshare(flags);
  printf("unshare %s\n", result == 0 ? "works" : strerror(errno));
  return 0;
}

// Waits to be looked at by a debugger, allocating.
int Idles(int, char**) {
  pthread_t thread = StartChurning();
  printf("ready\n");
  fflush(stdout);
  char byte = 0;
  while (read(0, &byte, 1) < 0 && errno == EINTR) {
  }
  stop = true;
  pthread_join(thread, nullptr);
  return End();
}

constexpr Scenario kScenarios[] = {
    {"closes_all", ClosesAll},
    {"dups_over_all", DupsOverAll},
    {"lists_descriptors", ListsDescriptors},
    {"counts_threads", CountsThreads},
    {"changes_user", ChangesUser},
    {"not_dumpable", NotDumpable},
    {"locks_memory", LocksMemory},
    {"unshares", Unshares},
    {"idles", Idles},
};

}  // namespace
}  // namespace survival

int main(int argc, char** argv) { return survival::RunScenario(survival::kScenarios, argc, argv); }
