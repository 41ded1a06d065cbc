// Small programs, one for each way to hold or to lose memory: `exit_cases NAME` runs one, `exit_cases`
// lists all with the blocks that leak.
//
// A case leaks blocks of 1000 + k bytes for k in `leaks`, and holds blocks of 2000 + k bytes that are
// no leaks. So a report is judged by its sizes. Written from what the detectors' authors describe;
// reference: LeakSanitizer, Valgrind memcheck, libmemunreachable, Juliet CWE-401.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <list>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "heapflare/heapflare.h"

namespace {

// The compiler must neither see through a block nor keep its address.
template <typename T>
[[gnu::noinline]] T* Hide(T* pointer) {
  asm volatile("" : "+r"(pointer) : : "memory");
  return pointer;
}
[[gnu::noinline]] void* Leak(int k) { return Hide(malloc(1000 + k)); }
[[gnu::noinline]] void* Held(int k) { return Hide(malloc(2000 + k)); }
// Overwrites what calls left on the stack and in registers.
[[gnu::noinline]] void CleanStack() {
  volatile char room[4096];
  for (char volatile& c : room) c = 0;
}
[[gnu::noinline]] void LoseOne(int k) {
  void* volatile p = Leak(k);
  p = nullptr;
}

void* global_initialized = reinterpret_cast<void*>(1);
void* global_zero;
static void* static_zero;
thread_local void* tls_static;

void Global() { global_zero = Held(0); }
void GlobalInitialized() { global_initialized = Held(0); }
void FileStatic() { static_zero = Held(0); }
void FunctionStatic() {
  static void* kept;
  kept = Held(0);
  Hide(&kept);
}
void Lost() { LoseOne(0); }
void LostTwo() {
  LoseOne(0);
  LoseOne(1);
}
void Overwritten() {
  global_zero = Leak(0);
  global_zero = Held(0);
}
void Calloc() {
  void* volatile p = Hide(calloc(1, 1000));
  p = nullptr;
}
void ReallocChain() {
  void* volatile p = Hide(malloc(10));
  for (int n = 20; n < 1000; n += 37) p = Hide(realloc(p, n));
  p = Hide(realloc(p, 1000));
  p = nullptr;
}
void ReallocHeld() {
  global_zero = malloc(10);
  for (int n = 20; n < 3000; n *= 2) global_zero = Hide(realloc(global_zero, n));
}
void ReallocShrink() {
  void* volatile p = Hide(malloc(5000));
  p = Hide(realloc(p, 1000));
  p = nullptr;
}
void ReallocFreed() {
  void* p = Hide(malloc(100));
  (void)!realloc(p, 0);
}
void Strdup() {
  std::string text(999, 'x');
  char* volatile p = Hide(strdup(text.c_str()));
  p = nullptr;
}
void New() {
  char* volatile p = Hide(static_cast<char*>(::operator new(1000)));
  p = nullptr;
}
void NewArray() {
  char* volatile p = Hide(new char[1000]);
  p = nullptr;
}
void Memalign() {
  void* p = nullptr;
  (void)!posix_memalign(&p, 256, 1000);
  Hide(p);
  p = nullptr;
  CleanStack();
}
void AlignedAllocHeld() { global_zero = aligned_alloc(4096, 8192); }
void ZeroSize() {
  void* volatile p = Hide(malloc(0));
  p = nullptr;
}
void HugeLost() {
  void* volatile p = Hide(malloc(64 << 20));
  p = nullptr;
}
void HugeHeld() {
  global_zero = malloc(64 << 20);
  void** words = static_cast<void**>(global_zero);
  words[5000000] = Held(0);
}
void HugeLostChild() {
  void** volatile p = static_cast<void**>(Hide(malloc(64 << 20)));
  p[5000000] = Leak(0);
  p = nullptr;
}
void Chain() {
  void** head = static_cast<void**>(Held(0));
  *head = Held(1);
  **reinterpret_cast<void***>(head) = Held(2);
  global_zero = head;
}
void ChainLost() {
  void** volatile head = static_cast<void**>(Leak(0));
  *head = Leak(1);
  *static_cast<void**>(*head) = Leak(2);
  head = nullptr;
}
void Cycle() {
  void** volatile a = static_cast<void**>(Leak(0));
  void** volatile b = static_cast<void**>(Leak(1));
  *a = b;
  *b = a;
  a = b = nullptr;
}
void SelfReference() {
  void** volatile a = static_cast<void**>(Leak(0));
  *a = a;
  a = nullptr;
}
struct Tree {
  Tree* left;
  Tree* right;
  char room[1000 - 2 * sizeof(void*)];
};
[[gnu::noinline]] Tree* Grow(int depth) {
  if (depth == 0) return nullptr;
  Tree* tree = static_cast<Tree*>(Hide(malloc(sizeof(Tree))));
  tree->left = Grow(depth - 1);
  tree->right = Grow(depth - 1);
  return tree;
}
void TreeLost() {
  Tree* volatile tree = Grow(3);
  tree = nullptr;
  CleanStack();
}
void TreeHeld() { global_zero = Grow(4); }
void Interior() { global_zero = static_cast<char*>(Held(0)) + 77; }
void OnePastEnd() { global_zero = static_cast<char*>(Held(0)) + 2000; }
void BeforeStart() {
  volatile uintptr_t p = reinterpret_cast<uintptr_t>(Leak(0)) - 64;
  global_zero = reinterpret_cast<void*>(p);
}
struct __attribute__((packed)) Packed {
  char odd[3];
  void* pointer;
};
Packed packed_global;
void PackedStruct() { packed_global.pointer = Held(0); }
void PackedInHeap() {
  Packed* packed = static_cast<Packed*>(Held(0));
  packed->pointer = Held(1);
  global_zero = packed;
}
void TaggedHigh() {
  global_zero =
      reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(Held(0)) | uintptr_t{0xab} << 56);
}
void TaggedLow() { global_zero = static_cast<char*>(Held(0)) + 1; }
void HiddenByXor() {
  volatile uintptr_t p = ~reinterpret_cast<uintptr_t>(Leak(0));
  global_zero = reinterpret_cast<void*>(p);
}
void TlsStatic() { tls_static = Held(0); }
pthread_t parked;
pthread_barrier_t barrier;
[[gnu::noinline]] void Park() {
  pthread_barrier_wait(&barrier);
  for (;;) pause();
}
template <typename Run>
void StartParked(Run run) {
  static Run kept = run;
  pthread_barrier_init(&barrier, nullptr, 2);
  pthread_create(
      &parked, nullptr,
      [](void*) -> void* {
        kept();
        return nullptr;
      },
      nullptr);
  pthread_barrier_wait(&barrier);
}
void ThreadStack() {
  StartParked([] {
    void* volatile p = Held(0);
    Park();
    (void)p;
  });
}
void ThreadTls() {
  StartParked([] {
    tls_static = Held(0);
    Hide(&tls_static);
    CleanStack();
    Park();
  });
}
void ThreadLost() {
  StartParked([] {
    LoseOne(0);
    CleanStack();
    Park();
  });
}
#if defined(__x86_64__)
void ThreadRegister() {
  StartParked([] {
    void* p = Held(0);
    pthread_barrier_wait(&barrier);
    asm volatile("1: pause\n jmp 1b" : : "r"(p));
  });
  usleep(1000);
}
void ThreadVectorRegister() {
  StartParked([] {
    uintptr_t p = reinterpret_cast<uintptr_t>(Held(0));
    pthread_barrier_wait(&barrier);
    asm volatile("movq %0, %%xmm9\n xor %0, %0\n 1: pause\n jmp 1b" : "+r"(p) : : "xmm9");
  });
  usleep(1000);
}
#endif
void DeadThreadStack() {
  std::thread([] {
    void* volatile room[64];
    for (auto& p : room) p = nullptr;
    room[9] = Leak(0);
  }).join();
}
void DeadThreads() {
  for (int i = 0; i < 3; ++i) std::thread([i] { LoseOne(i); }).join();
}
void JoinedThread() {
  std::thread([] { free(malloc(10)); }).join();
}
void DetachedThread() {
  std::thread([] {}).detach();
  usleep(20000);
}
pthread_key_t keys[100];
void ThreadSpecific() {
  pthread_key_create(&keys[0], nullptr);
  pthread_setspecific(keys[0], Held(0));
}
void ThreadSpecificMany() {
  for (auto& key : keys) pthread_key_create(&key, nullptr);
  pthread_setspecific(keys[90], Held(0));
}
void ThreadSpecificOfThread() {
  StartParked([] {
    for (auto& key : keys) pthread_key_create(&key, nullptr);
    pthread_setspecific(keys[90], Held(0));
    CleanStack();
    Park();
  });
}
void StaleInFreed() {
  void** holder = static_cast<void**>(Hide(malloc(64)));
  holder[4] = Leak(0);
  free(holder);
}
void StaleInFreedLarge() {
  void** holder = static_cast<void**>(Hide(malloc(20000)));
  void* volatile guard = Held(1);
  global_zero = guard;
  holder[1000] = Leak(0);
  free(holder);
}
void StaleInReused() {
  void** holder = static_cast<void**>(Hide(malloc(64)));
  holder[4] = Leak(0);
  free(holder);
  global_zero = Hide(malloc(64));
}
void StaleByRealloc() {
  void** holder = static_cast<void**>(Hide(malloc(64)));
  holder[4] = Leak(0);
  static_zero = Held(0);
  holder = static_cast<void**>(Hide(realloc(holder, 4000)));
  holder[4] = nullptr;
  global_zero = holder;
}
void MmapPrivate() {
  void** page = static_cast<void**>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  page[7] = Held(0);
}
void MmapShared() {
  void** page = static_cast<void**>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  page[7] = Held(0);
}
void MmapReadOnly() {
  void** page = static_cast<void**>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  page[7] = Held(0);
  mprotect(page, 4096, PROT_READ);
}
void MmapNone() {
  void** page = static_cast<void**>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  page[7] = Held(0);
  mprotect(page, 4096, PROT_NONE);
}
void MmapGone() {
  void** page = static_cast<void**>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  page[7] = Leak(0);
  munmap(page, 4096);
}
void Memfd() {
  const int fd = memfd_create("case", 0);
  (void)!ftruncate(fd, 4096);
  void** page = static_cast<void**>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  page[7] = Held(0);
}
void Sbrk() {
  void** room = static_cast<void**>(sbrk(4096));
  room[7] = Held(0);
}
void SparseMmap() {
  char* room = static_cast<char*>(mmap(nullptr, uint64_t{1} << 40, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  *reinterpret_cast<void**>(room + (uint64_t{1} << 39)) = Held(0);
}
void Epoll() {
  int ends[2];
  (void)!pipe(ends);
  const int fd = epoll_create1(0);
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.ptr = Held(0);
  epoll_ctl(fd, EPOLL_CTL_ADD, ends[0], &event);
  event.data.ptr = nullptr;
}
void Timer() {
  timer_t timer;
  sigevent event = {};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGRTMIN + 3;
  event.sigev_value.sival_ptr = Held(0);
  timer_create(CLOCK_MONOTONIC, &event, &timer);
  event.sigev_value.sival_ptr = nullptr;
}
void Pipe() {
  int ends[2];
  (void)!pipe(ends);
  void* p = Held(0);
  (void)!write(ends[1], &p, sizeof(p));
  p = nullptr;
}
void Socket() {
  int ends[2];
  (void)!socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
  void* p = Held(0);
  (void)!write(ends[1], &p, sizeof(p));
  p = nullptr;
}
void AlternateStack() {
  stack_t stack = {};
  stack.ss_size = 65536;
  stack.ss_sp = malloc(stack.ss_size);
  sigaltstack(&stack, nullptr);
  stack.ss_sp = nullptr;
}
ucontext_t main_context, fibre_context;
void Fibre(void* stack) {
  getcontext(&fibre_context);
  fibre_context.uc_stack.ss_sp = stack;
  fibre_context.uc_stack.ss_size = 65536;
  makecontext(
      &fibre_context,
      [] {
        void* volatile p = Held(0);
        swapcontext(&fibre_context, &main_context);
        (void)p;
      },
      0);
  swapcontext(&main_context, &fibre_context);
}
void FibreOnMmap() {
  Fibre(mmap(nullptr, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}
void FibreOnHeap() { Fibre(global_zero = malloc(65536)); }
void Containers() {
  static auto& map = *new std::map<std::string, std::vector<int>>;
  static auto& hash = *new std::unordered_map<int, std::string>;
  static auto& list = *new std::list<std::string>;
  for (int i = 0; i < 200; ++i) {
    map[std::string(40, 'a') + std::to_string(i)].resize(i);
    hash[i] = std::string(i, 'b');
    list.push_back(std::string(i, 'c'));
  }
}
void ContainersDestroyed() {
  static std::map<int, std::string> map;
  for (int i = 0; i < 200; ++i) map[i] = std::string(i, 'a');
}
void VectorLost() {
  auto* volatile lost = Hide(new std::vector<char>(1000));
  lost = nullptr;
}
struct A {
  virtual ~A() = default;
  char a[100];
};
struct B {
  virtual ~B() = default;
  char b[100];
};
struct C : A, B {
  char c[100];
};
B* base_pointer;
void SecondBase() { base_pointer = Hide(new C); }
struct D : virtual A {};
void VirtualBase() { global_zero = static_cast<A*>(Hide(new D)); }
struct WithDestructor {
  ~WithDestructor() { asm volatile(""); }
  char room[50];
};
WithDestructor* cookie;
void NewArrayCookie() { cookie = Hide(new WithDestructor[20]); }
struct Shared {
  std::shared_ptr<Shared> other;
  char room[1000];
};
void SharedCycle() {
  auto a = std::make_shared<Shared>();
  a->other = std::make_shared<Shared>();
  a->other->other = a;
}
void StringHeld() {
  static std::string* text = new std::string(5000, 'x');
  asm volatile("" : : "r"(text));
}
void Ignored() { heapflare_ignore(Leak(100)); }
void IgnoredLeadsTo() {
  void** p = static_cast<void**>(Leak(100));
  *p = Leak(101);
  heapflare_ignore(p);
}
void Disabled() {
  heapflare::LeakCheckDisabler disabler;
  LoseOne(100);
  heapflare_leak_check_disable();
  heapflare_leak_check_enable();
  LoseOne(101);
}
void DisabledEnded() {
  { heapflare::LeakCheckDisabler disabler; }
  LoseOne(0);
}
void ForkChildLeaks() {
  global_zero = Held(0);
  const pid_t child = fork();
  if (child == 0) {
    LoseOne(0);
    exit(0);
  }
  waitpid(child, nullptr, 0);
}
void ForkChildClean() {
  global_zero = Held(0);
  *static_cast<void**>(global_zero) = Held(1);
  const pid_t child = fork();
  if (child == 0) exit(0);
  waitpid(child, nullptr, 0);
}
void ForkWithThread() {
  StartParked([] {
    void* volatile p = Held(0);
    Park();
    (void)p;
  });
  const pid_t child = fork();
  if (child == 0) exit(0);
  waitpid(child, nullptr, 0);
}
void LeakBeforeFork() {
  LoseOne(0);
  const pid_t child = fork();
  if (child == 0) exit(0);
  waitpid(child, nullptr, 0);
}
void Dlopened() {
  void* const handle = dlopen("libresolv.so.2", RTLD_NOW);
  if (handle == nullptr) abort();
}
void Dlclosed() {
  void* const handle = dlopen("libresolv.so.2", RTLD_NOW);
  dlclose(handle);
}
void Stdio() {
  static FILE* kept = fopen("/dev/null", "w");
  fputs("x", kept);
  setlocale(LC_ALL, "");
}
[[gnu::noinline]] void ExitDeep(int depth) {
  void* volatile p = Held(depth);
  if (depth > 0) ExitDeep(depth - 1);
  (void)p;
  exit(0);
}
void ExitFromDeep() { ExitDeep(3); }
void FreedAtExit() {
  global_zero = Hide(malloc(1000));
  atexit([] {
    free(global_zero);
    global_zero = nullptr;
  });
}
void LostAtExit() {
  atexit([] { LoseOne(0); });
}
void ManyLost() {
  for (int i = 0; i < 100; ++i) LoseOne(i);
}
void EnvironmentHeld() { setenv("CASE", std::string(3000, 'x').c_str(), 1); }
void FreeAll() {
  void* blocks[1000];
  for (auto& block : blocks) block = malloc(100);
  for (auto& block : blocks) free(block);
}
void ThreadsAndChurn() {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      std::map<int, std::string> map;
      for (int i = 0; i < 2000; ++i) map[i % 97] = std::string(i % 300, 'x');
    });
  }
  for (auto& thread : threads) thread.join();
}

struct Case {
  const char* name;
  void (*run)();
  // Sizes of the blocks that leak, blank between; empty: none does.
  const char* leaks;
};
#define CASE(name, leaks) \
  { #name, name, leaks }
const Case kCases[] = {
    CASE(Global, ""),
    CASE(GlobalInitialized, ""),
    CASE(FileStatic, ""),
    CASE(FunctionStatic, ""),
    CASE(Lost, "1000"),
    CASE(LostTwo, "1000 1001"),
    CASE(Overwritten, "1000"),
    CASE(Calloc, "1000"),
    CASE(ReallocChain, "1000"),
    CASE(ReallocHeld, ""),
    CASE(ReallocShrink, "1000"),
    CASE(ReallocFreed, ""),
    CASE(Strdup, "1000"),
    CASE(New, "1000"),
    CASE(NewArray, "1000"),
    CASE(Memalign, "1000"),
    CASE(AlignedAllocHeld, ""),
    CASE(ZeroSize, "0"),
    CASE(HugeLost, "67108864"),
    CASE(HugeHeld, ""),
    CASE(HugeLostChild, "67108864 1000"),
    CASE(Chain, ""),
    CASE(ChainLost, "1000 1001 1002"),
    CASE(Cycle, "1000 1001"),
    CASE(SelfReference, "1000"),
    CASE(TreeLost, "1000 1000 1000 1000 1000 1000 1000"),
    CASE(TreeHeld, ""),
    CASE(Interior, ""),
    CASE(OnePastEnd, ""),
    CASE(BeforeStart, "1000"),
    CASE(PackedStruct, ""),
    CASE(PackedInHeap, ""),
    CASE(TaggedHigh, ""),
    CASE(TaggedLow, ""),
    CASE(HiddenByXor, "1000"),
    CASE(TlsStatic, ""),
    CASE(ThreadStack, ""),
    CASE(ThreadTls, ""),
    CASE(ThreadLost, "1000"),
#if defined(__x86_64__)
    CASE(ThreadRegister, ""),
    CASE(ThreadVectorRegister, ""),
#endif
    CASE(DeadThreadStack, "1000"),
    CASE(DeadThreads, "1000 1001 1002"),
    CASE(JoinedThread, ""),
    CASE(DetachedThread, ""),
    CASE(ThreadSpecific, ""),
    CASE(ThreadSpecificMany, ""),
    CASE(ThreadSpecificOfThread, ""),
    CASE(StaleInFreed, "1000"),
    CASE(StaleInFreedLarge, "1000"),
    CASE(StaleInReused, "1000"),
    CASE(StaleByRealloc, "1000"),
    CASE(MmapPrivate, ""),
    CASE(MmapShared, ""),
    CASE(MmapReadOnly, ""),
    CASE(MmapNone, ""),
    CASE(MmapGone, "1000"),
    CASE(Memfd, ""),
    CASE(Sbrk, ""),
    CASE(SparseMmap, ""),
    CASE(Epoll, ""),
    CASE(Timer, ""),
    CASE(Pipe, ""),
    CASE(Socket, ""),
    CASE(AlternateStack, ""),
    CASE(FibreOnMmap, ""),
    CASE(FibreOnHeap, ""),
    CASE(Containers, ""),
    CASE(ContainersDestroyed, ""),
    CASE(VectorLost, "24 1000"),
    CASE(SecondBase, ""),
    CASE(VirtualBase, ""),
    CASE(NewArrayCookie, ""),
    CASE(SharedCycle, "1032 1032"),
    CASE(StringHeld, ""),
    CASE(Ignored, ""),
    CASE(IgnoredLeadsTo, ""),
    CASE(Disabled, ""),
    CASE(DisabledEnded, "1000"),
    CASE(ForkChildLeaks, "1000"),
    CASE(ForkChildClean, ""),
    CASE(ForkWithThread, ""),
    CASE(LeakBeforeFork, "1000"),
    CASE(Dlopened, ""),
    CASE(Dlclosed, ""),
    CASE(Stdio, ""),
    CASE(ExitFromDeep, ""),
    CASE(FreedAtExit, ""),
    CASE(LostAtExit, "1000"),
    CASE(ManyLost, "100x"),
    CASE(EnvironmentHeld, ""),
    CASE(FreeAll, ""),
    CASE(ThreadsAndChurn, ""),
};

}  // namespace

int main(int argc, char** argv) {
  for (const Case& one : kCases) {
    if (argc < 2) {
      printf("%s: %s\n", one.name, one.leaks);
    } else if (strcmp(argv[1], one.name) == 0) {
      one.run();
      // They are read: else a compiler leaves out what is stored to them.
      for (void* kept : {static_cast<void*>(&global_initialized), static_cast<void*>(&global_zero),
                         static_cast<void*>(&static_zero), static_cast<void*>(&packed_global),
                         static_cast<void*>(&tls_static), static_cast<void*>(&base_pointer),
                         static_cast<void*>(&cookie)}) {
        Hide(kept);
      }
      return 0;
    }
  }
  return argc < 2 ? 0 : 3;
}
