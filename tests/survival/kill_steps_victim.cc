// Does one operation again and again, with a marker before and after it. See kill_steps.cc, which
// steps through the operation, kills it, and sends it signals.
//
//   kill_steps_victim PAGE SCENARIO PLUGIN
#include <dlfcn.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

#include "heapflare/heapflare.h"
#include "kill_steps.h"

namespace {

using kill_test::Page;

Page* page = nullptr;
// A forked child is not stepped: its breakpoints would kill it.
volatile sig_atomic_t forked = 0;
sigjmp_buf jump;

void Mark(kill_test::Marker marker) {
  if (forked == 0) asm volatile("int3" : : "a"(uint64_t{marker}) : "memory");
}

void* Keep(void* block) {
  asm volatile("" : "+r"(block)::"memory");
  return block;
}

__attribute__((noinline)) void* Allocate(size_t bytes) { return Keep(std::malloc(bytes)); }

// Through frames that `path` chooses: a number that was not used yet makes a stack that is new.
__attribute__((noinline)) void* Deeper(uint64_t path, int depth, size_t bytes) {
  if (depth == 0) return Allocate(bytes);
  void* block = nullptr;
  // Two calls of the same: two return addresses.
  if ((path & 1) != 0) {
    block = Keep(Deeper(path >> 1, depth - 1, bytes));
  } else {
    block = Keep(Deeper(path >> 1, depth - 1, bytes));
    asm volatile("nop");
  }
  return block;
}

void Expect(uint64_t allocated, uint64_t freed) {
  page->exact = 1;
  page->allocated_objects = allocated == 0 ? 0 : 1;
  page->allocated_bytes = allocated;
  page->freed_objects = freed == 0 ? 0 : 1;
  page->freed_bytes = freed;
}

// --- The signal handler ---

void AllocateInHandler() {
  constexpr int kKept = 8;
  static void* kept[kKept];
  static size_t sizes[kKept];
  static uint64_t turn = 0;
  const uint64_t i = turn++ % kKept;
  if (kept[i] != nullptr) {
    std::free(kept[i]);
    page->handler_freed_objects += 1;
    page->handler_freed_bytes += sizes[i];
  }
  sizes[i] = 40 + turn % 200;
  kept[i] = turn % 4 == 0 ? Deeper(turn, 12, sizes[i]) : Allocate(sizes[i]);
  page->handler_allocated_objects += 1;
  page->handler_allocated_bytes += sizes[i];
}

// Crosses the end of a slice of the sampler's countdown about every second time (sampler.h).
bool large = false;

void AllocateLargeInHandler() { std::free(Allocate(3 << 20)); }

void Handle(int) {
  switch (page->handler.load()) {
    case kill_test::Handler::kAllocate:
      if (large) {
        AllocateLargeInHandler();
      } else {
        AllocateInHandler();
      }
      break;
    case kill_test::Handler::kFork: {
      page->children_forked += 1;
      const pid_t child = fork();
      if (child == 0) {
        forked = 1;
        return;  // into the middle of the operation
      }
      int status = 0;
      if (waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
          WTERMSIG(status) == SIGKILL) {
        page->children_finished += 1;
      } else {
        page->child_status = static_cast<uint64_t>(status);
      }
      break;
    }
    case kill_test::Handler::kJump:
      siglongjmp(jump, 1);
  }
  Mark(kill_test::kHandled);
}

// What a forked child does after the operation, before it is killed: a box of its own must come of it.
[[noreturn]] void EndChild() {
  void* blocks[20];
  for (void*& block : blocks) block = Deeper(static_cast<uint64_t>(&block - blocks), 5, 777);
  for (int i = 0; i < 10; ++i) std::free(blocks[i]);
  raise(SIGKILL);
  _exit(1);
}

template <typename Operation>
void Between(Operation operation) {
  if (sigsetjmp(jump, 1) == 0) {
    Mark(kill_test::kBefore);
    operation();
  }
  if (forked != 0) EndChild();
  Mark(kill_test::kAfter);
}

// --- The scenarios ---

// Sizes vary, so that a slot that is used again differs from what it held.
[[noreturn]] void Malloc() {
  for (size_t i = 0;; ++i) {
    void* block = nullptr;
    const size_t bytes = 1000 + i % 8;
    Expect(bytes, 0);
    Between([&] { block = Allocate(bytes); });
    std::free(block);
  }
}

[[noreturn]] void LargeMalloc() {
  large = true;
  page->exact = 0;
  for (;;) {
    void* block = nullptr;
    Between([&] { block = Allocate(4 << 20); });
    std::free(block);
  }
}

[[noreturn]] void Free() {
  for (;;) {
    void* const block = Allocate(1000);
    Expect(0, 1000);
    Between([&] { std::free(block); });
  }
}

[[noreturn]] void NewStack() {
  for (uint64_t path = 1;; ++path) {
    void* block = nullptr;
    Expect(500, 0);
    Between([&] { block = Deeper(path, 12, 500); });
    std::free(block);
  }
}

[[noreturn]] void Realloc() {
  for (size_t i = 0;; ++i) {
    void* block = Allocate(500 + i % 8);
    const size_t bytes = 9000 + i % 7;
    Expect(bytes, 500 + i % 8);
    Between([&] { block = Keep(std::realloc(block, bytes)); });
    std::free(block);
  }
}

[[noreturn]] void ReallocThatFails() {
  void* const block = Allocate(500);
  for (;;) {
    Expect(0, 0);
    Between([&] { Keep(std::realloc(block, size_t{1} << 60)); });
  }
}

[[noreturn]] void Dlopen(const char* plugin) {
  for (;;) {
    void* block = nullptr;
    void* library = nullptr;
    page->exact = 0;
    Between([&] {
      library = dlopen(plugin, RTLD_NOW | RTLD_LOCAL);
      block = reinterpret_cast<void* (*)(size_t)>(dlsym(library, "kill_plugin_allocate"))(600);
    });
    std::free(block);
    dlclose(library);
    // Until then no hook scans for new modules again.
    usleep(110'000);
  }
}

// The driver sets HEAPFLARE_SAMPLE_INTERVAL=0 and keeps the recorder's thread from opening the box.
[[noreturn]] void FirstSample() {
  heapflare_set_sample_interval(1);
  // To the end of the slice of 8 MiB that was drawn while sampling was off, where the new setting is
  // seen: the allocation after the one that crosses it is the first sample.
  for (int i = 0; i < 17; ++i) std::free(Keep(std::malloc(500 << 10)));
  void* block = nullptr;
  Expect(1000, 0);
  Between([&] { block = Allocate(1000); });
  for (;;) pause();
}

[[noreturn]] void Dump() {
  page->exact = 0;
  for (;;) {
    int error = 0;
    Between([&] { error = heapflare_dump(nullptr); });
    if (error != 0) _exit(10);
  }
}

// Keeps what it allocates, so the table of samples fills. Sizes vary, or the addresses would hash
// without collisions.
[[noreturn]] void After(int samples) {
  uint64_t random = 1;
  const auto size = [&random] { return 16 + (random = random * 6364136223846793005 + 1) % 509; };
  for (int i = 0; i < samples; ++i) Allocate(size());
  for (;;) {
    const uint64_t bytes = size();
    Expect(bytes, 0);
    Between([bytes] { Allocate(bytes); });
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const int fd = open(argv[1], O_RDWR | O_CLOEXEC);
  void* const memory = mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd < 0 || memory == MAP_FAILED) return 2;
  close(fd);
  page = static_cast<Page*>(memory);
  const char* const names[] = {"malloc", "free", "calloc", "realloc", "memalign", "posix_memalign"};
  for (int i = 0; i < 6; ++i) {
    page->allocator[i] = reinterpret_cast<uint64_t>(dlsym(dlopen("libc.so.6", RTLD_NOW), names[i]));
  }
  struct sigaction action = {};
  action.sa_handler = Handle;
  sigaction(SIGUSR1, &action, nullptr);

  const std::string_view scenario = argv[2];
  // What was done once has its stack in the box and its frames in the unwinder's table.
  if (scenario != "first_sample") {
    for (int i = 0; i < 3; ++i) std::free(Allocate(1000));
  }
  if (scenario == "malloc") Malloc();
  if (scenario == "large") LargeMalloc();
  if (scenario == "free") Free();
  if (scenario == "new_stack") NewStack();
  if (scenario == "realloc") Realloc();
  if (scenario == "realloc_fails") ReallocThatFails();
  if (scenario == "dlopen") Dlopen(argv[3]);
  if (scenario == "first_sample") FirstSample();
  if (scenario == "dump") Dump();
  if (scenario == "samples") After(std::atoi(argv[3]));
  return 2;
}
