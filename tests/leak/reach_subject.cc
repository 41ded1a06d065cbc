// Keeps blocks in all ways in which a program can refer to one, and loses others. Each block has a
// size of its own, by which the test knows it.
//
//   reach_subject PLUGIN [RESTRICTION...]   lines on stdin: "free" frees the block of which only the
//                                       complement of its address was kept; "fork"; "end"
//
// Prints "ready" when the blocks are as old as the recorder wants them: a second.
#include <dlfcn.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

// Known to reach_test.py by these names.
enum Size : size_t {
  kGlobal = 50'001,
  kStaticTls = 50'002,
  kDynamicTls = 50'003,
  kPthreadSpecific = 50'004,
  kThreadStack = 50'005,
  kRegister = 50'006,
  kVectorRegister = 50'007,
  kInterior = 50'008,
  kOnePastEnd = 50'009,
  kMisaligned = 50'010,
  kTagged = 50'011,
  kEpoll = 50'012,
  kTimer = 50'013,
  kReadOnlyPage = 50'014,
  kHiddenPage = 50'015,
  kSharedMemory = 50'016,
  kInBlock = 50'017,
  kOtherProgramsHeap = 50'018,
  kSystemCall = 50'019,
  kLost = 60'001,
  kLostParent = 60'002,
  kLostChild = 60'003,
  kLostCycleA = 60'004,
  kLostCycleB = 60'005,
  kLostSelf = 60'006,
  kComplement = 60'007,
  kLostPastInterior = 60'008,
};

constexpr size_t kPage = 4096;
constexpr uint64_t kTag = uint64_t{0xb4ff} << 48;

// A pointer that no scan can see: what goes round between the functions here.
class Hidden {
 public:
  explicit Hidden(size_t size) : complement_(~reinterpret_cast<uint64_t>(malloc(size))) {}
  uint64_t complement() const { return complement_; }
  // To be used for one store only.
  [[gnu::always_inline]] uint64_t address() const { return ~complement_; }

 private:
  uint64_t complement_;
};

// Overwrites what calls have left below: stale pointers count as references.
[[gnu::noinline]] void ScrubStack() {
  volatile char room[48 << 10];
  for (volatile char& byte : room) byte = 0;
  asm volatile("" : : "r"(room) : "memory");
}

[[gnu::noinline]] void StoreAt(void* place, const Hidden& hidden, uint64_t plus = 0) {
  const uint64_t word = hidden.address() + plus;
  memcpy(place, &word, sizeof(word));
}

uint64_t global = 0;
thread_local uint64_t static_tls = 0;
uint64_t interior = 0;
uint64_t past_end = 0;
uint64_t tagged = 0;
alignas(8) char misaligned[24] = {};
uint64_t* block_that_refers = nullptr;
uint64_t complement_of_hidden = 0;
uint64_t in_registers[2] = {};  // complements
uint64_t in_call = 0;
std::atomic<int> standing = 0;
int never_written[2];

char* MapPage(int flags) {
  void* const page = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) abort();
  return static_cast<char*>(page);
}

[[gnu::noinline]] void KeepInMemory(const char* plugin) {
  StoreAt(&global, Hidden(kGlobal));
  StoreAt(&static_tls, Hidden(kStaticTls));
  void* const library = dlopen(plugin, RTLD_NOW);
  if (library == nullptr) abort();
  const auto keep = reinterpret_cast<void (*)(uint64_t)>(dlsym(library, "Keep"));
  keep(Hidden(kDynamicTls).address());
  pthread_key_t key = 0;
  pthread_key_create(&key, nullptr);
  pthread_setspecific(key, reinterpret_cast<void*>(Hidden(kPthreadSpecific).address()));
  StoreAt(&interior, Hidden(kInterior), 20'000);
  StoreAt(&past_end, Hidden(kOnePastEnd), kOnePastEnd);
  StoreAt(misaligned + 4, Hidden(kMisaligned));
  StoreAt(&tagged, Hidden(kTagged), kTag);
  block_that_refers = static_cast<uint64_t*>(malloc(128));
  StoreAt(block_that_refers + 3, Hidden(kInBlock));
  StoreAt(MapPage(MAP_SHARED) + 800, Hidden(kSharedMemory));
  StoreAt(MapPage(MAP_PRIVATE) + 800, Hidden(kOtherProgramsHeap));
  char* const read_only = MapPage(MAP_PRIVATE);
  StoreAt(read_only + 96, Hidden(kReadOnlyPage));
  mprotect(read_only, kPage, PROT_READ);
  char* const hidden = MapPage(MAP_PRIVATE);
  StoreAt(hidden + 96, Hidden(kHiddenPage));
  mprotect(hidden, kPage, PROT_NONE);
}

[[gnu::noinline]] void KeepInKernel() {
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0 || pipe(never_written) != 0) abort();
  epoll_event event = {};
  event.events = EPOLLIN;
  StoreAt(&event.data, Hidden(kEpoll));
  epoll_ctl(epoll, EPOLL_CTL_ADD, never_written[0], &event);
  event = {};
  asm volatile("" : : "r"(&event) : "memory");
  sigevent when = {};
  when.sigev_notify = SIGEV_SIGNAL;
  when.sigev_signo = SIGUSR1;
  StoreAt(&when.sigev_value, Hidden(kTimer));
  // libc would keep a copy.
  int timer = 0;
  syscall(SYS_timer_create, CLOCK_MONOTONIC, &when, &timer);
  when = {};
  asm volatile("" : : "r"(&when) : "memory");
}

void* HoldOnStack(void* /*unused*/) {
  uint64_t local[4] = {};
  StoreAt(&local[2], Hidden(kThreadStack));
  ScrubStack();
  standing.fetch_add(1);
  for (;;) {
    pause();
    asm volatile("" : : "r"(local) : "memory");
  }
}

#if defined(__x86_64__)
// Waits in the kernel with the pointer in a register that the kernel gives back, and nowhere else.
void* HoldInRegister(void* /*unused*/) {
  ScrubStack();
  asm volatile(
      "mov %0, %%r12\n\t"
      "not %%r12\n\t"
      "lock incl %1\n\t"
      "1: mov $34, %%eax\n\t"  // pause
      "syscall\n\t"
      "jmp 1b"
      :
      : "r"(in_registers[0]), "m"(standing)
      : "rax", "rcx", "r11", "r12", "memory");
  return nullptr;
}
void* HoldInVectorRegister(void* /*unused*/) {
  ScrubStack();
  asm volatile(
      "mov %0, %%rax\n\t"
      "not %%rax\n\t"
      "movq %%rax, %%xmm11\n\t"
      "xor %%eax, %%eax\n\t"
      "lock incl %1\n\t"
      "1: mov $34, %%eax\n\t"
      "syscall\n\t"
      "jmp 1b"
      :
      : "r"(in_registers[1]), "m"(standing)
      : "rax", "rcx", "r11", "xmm11", "memory");
  return nullptr;
}
// read(2) into the block: the pointer is the call's argument.
void* HoldInCall(void* /*unused*/) {
  ScrubStack();
  asm volatile(
      "mov %0, %%rsi\n\t"
      "not %%rsi\n\t"
      "mov %2, %%edi\n\t"
      "mov $16, %%edx\n\t"
      "lock incl %1\n\t"
      "xor %%eax, %%eax\n\t"  // read
      "syscall\n\t"
      "1: mov $34, %%eax\n\t"
      "syscall\n\t"
      "jmp 1b"
      :
      : "r"(in_call), "m"(standing), "m"(never_written[0])
      : "rax", "rcx", "rdx", "rdi", "rsi", "r11", "memory");
  return nullptr;
}
constexpr int kHolders = 4;
#else
constexpr int kHolders = 1;
#endif

void Start(void* (*run)(void*)) {
  pthread_t thread;
  if (pthread_create(&thread, nullptr, run, nullptr) != 0) abort();
}

[[gnu::noinline]] void StartHolders() {
  in_registers[0] = Hidden(kRegister).complement();
  in_registers[1] = Hidden(kVectorRegister).complement();
  in_call = Hidden(kSystemCall).complement();
  Start(HoldOnStack);
#if defined(__x86_64__)
  Start(HoldInRegister);
  Start(HoldInVectorRegister);
  Start(HoldInCall);
#endif
  while (standing.load() != kHolders) usleep(1000);
}

[[gnu::noinline]] void Lose() {
  (void)Hidden(kLost);
  const Hidden parent(kLostParent);
  StoreAt(reinterpret_cast<char*>(parent.address()) + 64, Hidden(kLostChild));
  const Hidden a(kLostCycleA);
  const Hidden b(kLostCycleB);
  StoreAt(reinterpret_cast<char*>(a.address()) + 64, b);
  StoreAt(reinterpret_cast<char*>(b.address()) + 64, a);
  const Hidden self(kLostSelf);
  StoreAt(reinterpret_cast<char*>(self.address()) + 64, self);
  complement_of_hidden = Hidden(kComplement).complement();
  (void)Hidden(kLostPastInterior);
}

void ForbidPtrace(uint32_t action) {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ptrace, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, action),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {.len = 4, .filter = code};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  // For all threads: the recorder's too.
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0) {
    perror("seccomp");
    exit(77);
  }
}

void Restrict(const std::string& how) {
  if (how == "seccomp_errno") ForbidPtrace(SECCOMP_RET_ERRNO | EPERM);
  if (how == "seccomp_kill") ForbidPtrace(SECCOMP_RET_KILL_PROCESS);
  if (how == "seccomp_allow") ForbidPtrace(SECCOMP_RET_ALLOW);
  if (how == "big") memset(malloc(400 << 20), 1, 400 << 20);
  if (how == "not_dumpable") prctl(PR_SET_DUMPABLE, 0);
  // An ordinary user, with whose rights root's are not mixed up.
  if (how == "nobody" && setresuid(65534, 65534, 65534) != 0) exit(77);
}

// The child allocates as well, long enough to have a box of its own.
void Fork() {
  const pid_t child = fork();
  if (child == 0) {
    for (int i = 0; i < 2'000; ++i) free(malloc(1000 + static_cast<size_t>(i)));
    usleep(100'000);
    exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  printf("forked %d\n", status);
  fflush(stdout);
}

void AgeASecond() {
  const timespec pause = {1, 300'000'000};
  nanosleep(&pause, nullptr);
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 2; i < argc; ++i) Restrict(argv[i]);
  KeepInMemory(argv[1]);
  KeepInKernel();
  StartHolders();
  Lose();
  ScrubStack();
  AgeASecond();
  puts("ready");
  fflush(stdout);
  char line[64];
  while (fgets(line, sizeof(line), stdin) != nullptr) {
    if (strcmp(line, "end\n") == 0) break;
    if (strcmp(line, "fork\n") == 0) Fork();
    if (strcmp(line, "free\n") == 0) {
      free(reinterpret_cast<void*>(~complement_of_hidden));
      puts("freed");
      fflush(stdout);
    }
  }
  _exit(0);
}
