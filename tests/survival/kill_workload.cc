// Allocates, frees and keeps books of it (kill_books.h) on several threads until it is killed. See
// kill_random.cc.
//
//   kill_workload BOOKS MODE THREADS PLUGIN
//
// MODE, what the threads spend their time with:
//   mixed    every way of allocating, blocks freed by other threads, realloc that fails
//   stacks   every allocation from a stack that was never seen
//   fill     keeps more blocks than the box has room for, so sampling thins
//   churn    threads that live for a few hundred operations
//   dlopen   one thread loads, uses and unloads a library; the others as mixed
//   dump     one thread asks for dumps all the time; the others as mixed
//   fork     one thread forks children that allocate and are killed too; the others as mixed
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string_view>
#include <thread>
#include <vector>

#include "heapflare/heapflare.h"
#include "kill_books.h"

using kill_test::Books;
using kill_test::Lane;
using kill_test::Operation;

// What every block of ours begins with.
struct BlockHead {
  uint64_t site;
  uint64_t bytes;
};

#define KILL_SITE extern "C" __attribute__((noinline, visibility("default"))) void*

namespace {
// Nothing is known of what came out, so no call is left out or made a jump.
void* Keep(void* block) {
  asm volatile("" : "+r"(block)::"memory");
  return block;
}
}  // namespace

KILL_SITE SiteMalloc(void*, size_t bytes) { return Keep(std::malloc(bytes)); }
KILL_SITE SiteCalloc(void*, size_t bytes) { return Keep(std::calloc(1, bytes)); }
KILL_SITE SiteNew(void*, size_t bytes) { return Keep(::operator new(bytes)); }
KILL_SITE SiteNewAligned(void*, size_t bytes) {
  return Keep(::operator new(bytes, std::align_val_t(64)));
}
KILL_SITE SiteMemalign(void*, size_t bytes) {
  void* block = nullptr;
  if (posix_memalign(&block, 128, bytes) != 0) return nullptr;
  return Keep(block);
}
KILL_SITE SiteRealloc(void* old, size_t bytes) { return Keep(std::realloc(old, bytes)); }
KILL_SITE SiteReallocArray(void* old, size_t bytes) { return Keep(reallocarray(old, bytes, 1)); }

namespace {

using Site = void* (*)(void*, size_t);
constexpr Site kSites[] = {SiteMalloc,   SiteCalloc,  SiteNew,         SiteNewAligned,
                           SiteMemalign, SiteRealloc, SiteReallocArray};
constexpr uint32_t kFirstRealloc = 5;
constexpr uint32_t kOwnSites = sizeof(kSites) / sizeof(kSites[0]);
static_assert(kOwnSites == kill_test::kPluginSite);

// Where threads leave blocks for each other.
std::atomic<void*> exchange[64];

// Reaches `site` through frames that `path` chooses, so that stacks differ. The barrier keeps the
// call from becoming a jump.
__attribute__((noinline)) void* ThroughA(Site site, void* old, size_t bytes, uint64_t path,
                                         int depth);
__attribute__((noinline)) void* ThroughB(Site site, void* old, size_t bytes, uint64_t path,
                                         int depth);

__attribute__((noinline)) void* Step(Site site, void* old, size_t bytes, uint64_t path, int depth) {
  if (depth == 0) return Keep(site(old, bytes));
  const auto next = (path & 1) != 0 ? ThroughA : ThroughB;
  return Keep(next(site, old, bytes, path >> 1, depth - 1));
}
__attribute__((noinline)) void* ThroughA(Site site, void* old, size_t bytes, uint64_t path,
                                         int depth) {
  return Keep(Step(site, old, bytes, path, depth));
}
__attribute__((noinline)) void* ThroughB(Site site, void* old, size_t bytes, uint64_t path,
                                         int depth) {
  void* const block = Keep(Step(site, old, bytes, path, depth));
  asm volatile("nop");  // not folded with ThroughA
  return block;
}

class Worker {
 public:
  Worker(Lane& lane, uint64_t seed, bool new_stacks, bool fill)
      : lane_(lane), random_(seed * 0x9E3779B97F4A7C15 + 1), new_stacks_(new_stacks), fill_(fill) {}
  ~Worker() {
    for (void*& block : blocks_) Free(block);
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void Turn() {
    void*& block = blocks_[Random(fill_ ? kBlocks : 256)];
    if (fill_) {
      if (block == nullptr) block = Allocate(nullptr, Random(kFirstRealloc));
      return;
    }
    switch (Random(8)) {
      case 0:
        block = exchange[Random(64)].exchange(block);
        break;
      case 1:
        Free(block);
        break;
      case 2:
        FailToReallocate(block);
        std::free(nullptr);
        if (block == nullptr) block = Allocate(nullptr, kFirstRealloc);
        break;
      case 3:
      case 4:
        block = Allocate(block, kFirstRealloc + Random(2));
        break;
      default:
        Free(block);
        block = Allocate(nullptr, Random(kFirstRealloc));
    }
  }

  void Free(void*& block) {
    if (block == nullptr) return;
    const BlockHead head = *static_cast<BlockHead*>(block);
    lane_.Begin(
        {.frees = true, .freed_site = static_cast<uint32_t>(head.site), .freed_bytes = head.bytes});
    std::free(block);
    lane_.End();
    block = nullptr;
  }

  // With `old` it takes the place of that block.
  void* Allocate(void* old, uint32_t site) {
    const size_t bytes = sizeof(BlockHead) + Random(Random(16) == 0 ? 60000 : 600);
    return Run(old, site, bytes, kSites[site]);
  }

  void* Run(void* old, uint32_t site, size_t bytes, Site function) {
    Operation operation = {.allocates = true, .site = site, .bytes = bytes};
    if (old != nullptr) {
      const BlockHead head = *static_cast<BlockHead*>(old);
      operation.frees = true;
      operation.freed_site = static_cast<uint32_t>(head.site);
      operation.freed_bytes = head.bytes;
    }
    const uint64_t path = new_stacks_ ? random_ : random_ % 8;
    lane_.Begin(operation);
    void* const block = Step(function, old, bytes, path, new_stacks_ ? 16 : 3);
    if (block == nullptr) std::_Exit(5);
    lane_.End();
    *static_cast<BlockHead*>(block) = {.site = site, .bytes = bytes};
    return block;
  }

 private:
  static constexpr uint32_t kBlocks = 1 << 15;

  void FailToReallocate(void* block) {
    if (block == nullptr) return;
    lane_.Begin({});
    // More than there are addresses.
    if (SiteRealloc(block, size_t{1} << 60) != nullptr) std::_Exit(6);
    lane_.Cancel();
  }

  // xorshift64*
  uint32_t Random(uint32_t below) {
    random_ ^= random_ >> 12;
    random_ ^= random_ << 25;
    random_ ^= random_ >> 27;
    return static_cast<uint32_t>((random_ * 0x2545F4914F6CDD1D) >> 33) % below;
  }

  Lane& lane_;
  uint64_t random_;
  bool new_stacks_;
  bool fill_;
  void* blocks_[kBlocks] = {};
};

Books* OpenBooks(const char* path) {
  const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0 || ftruncate(fd, sizeof(Books)) != 0) return nullptr;
  void* const memory = mmap(nullptr, sizeof(Books), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (memory == MAP_FAILED) return nullptr;
  auto* const books = static_cast<Books*>(memory);
  for (uint32_t i = 0; i < kOwnSites; ++i) {
    Dl_info info = {};
    const ElfW(Sym)* symbol = nullptr;
    if (dladdr1(reinterpret_cast<void*>(kSites[i]), &info,
                const_cast<void**>(reinterpret_cast<const void**>(&symbol)), RTLD_DL_SYMENT) == 0 ||
        symbol == nullptr) {
      return nullptr;
    }
    books->sites[i] = {.start = reinterpret_cast<uint64_t>(kSites[i]), .bytes = symbol->st_size};
  }
  books->magic.store(kill_test::kBooksMagic, std::memory_order_release);
  return books;
}

// Its pages are touched by the first turns, not at once.
Worker& NewWorker(Lane& lane, uint64_t seed, bool new_stacks, bool fill) {
  void* const memory = mmap(nullptr, sizeof(Worker), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) std::_Exit(7);
  return *new (memory) Worker(lane, seed, new_stacks, fill);
}

[[noreturn]] void LoadAndUnload(Lane& lane, const char* plugin) {
  Worker& worker = NewWorker(lane, 99, false, false);
  for (;;) {
    void* const library = dlopen(plugin, RTLD_NOW | RTLD_LOCAL);
    const auto allocate =
        library == nullptr
            ? nullptr
            : reinterpret_cast<void* (*)(size_t)>(dlsym(library, "kill_plugin_allocate"));
    if (allocate == nullptr) std::_Exit(8);
    static thread_local void* (*function)(size_t);
    function = allocate;
    void* block = worker.Run(nullptr, kill_test::kPluginSite, 1000,
                             [](void*, size_t bytes) { return Keep(function(bytes)); });
    worker.Free(block);
    dlclose(library);
  }
}

[[noreturn]] void Fork() {
  // The child's own books are nobody's.
  static Lane lane;
  for (uint64_t i = 1;; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      Worker& worker = NewWorker(lane, i, false, false);
      for (int turn = 0; turn < 300; ++turn) worker.Turn();
      raise(SIGKILL);
    }
    if (child < 0 || waitpid(child, nullptr, 0) != child) std::_Exit(9);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const std::string_view mode = argv[2];
  const int threads = std::atoi(argv[3]);
  Books* const books = OpenBooks(argv[1]);
  if (books == nullptr || threads < 1 || threads > static_cast<int>(kill_test::kLanes)) return 2;
  std::vector<std::thread> running;
  for (int i = 0; i < threads; ++i) {
    Lane& lane = books->lanes[i];
    const bool special = i == 0;
    running.emplace_back([&lane, mode, special, i, books, plugin = argv[4]] {
      books->ready.fetch_add(1);
      if (special && mode == "dlopen") LoadAndUnload(lane, plugin);
      if (special && mode == "fork") Fork();
      if (special && mode == "dump") {
        for (;;) heapflare_dump(nullptr);
      }
      if (mode == "churn") {
        for (uint64_t seed = static_cast<uint64_t>(i);; seed += kill_test::kLanes) {
          std::thread([&lane, seed] {
            Worker& worker = NewWorker(lane, seed, false, false);
            for (int turn = 0; turn < 300; ++turn) worker.Turn();
            worker.~Worker();
            munmap(&worker, sizeof(worker));
          }).join();
        }
      }
      Worker& worker =
          NewWorker(lane, static_cast<uint64_t>(i) + 1, mode == "stacks", mode == "fill");
      for (;;) worker.Turn();
    });
  }
  for (std::thread& thread : running) thread.join();
}
