// Allocation before and after main, and at the ends of threads: before any constructor, in
// constructors of libraries that come before the recorder's, in destructors of thread_local objects
// and of pthread keys, in atexit handlers, in destructors after the recorder's.
#include <pthread.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/conformance/held.h"

// In lifetimes_library.cc.
extern "C" int LibraryConstructorWorked();

namespace {

using conformance::kHeldBlocks;

CONFORMANCE_HOLDER(HoldInPreinit, malloc(2001))
CONFORMANCE_HOLDER(HoldInConstructor, operator new(2002))
CONFORMANCE_HOLDER(HoldInThreadLocalDestructor, operator new(2003))
CONFORMANCE_HOLDER(HoldInKeyDestructor, calloc(1, 2004))
CONFORMANCE_HOLDER(HoldInAtexit, malloc(2005))
CONFORMANCE_HOLDER(HoldInStaticDestructor, operator new(2006))
CONFORMANCE_HOLDER(HoldInThread, operator new(2007))

[[gnu::noinline]] void FreeSome() {
  free(realloc(malloc(100), 5000));
  delete new std::string(300, 'x');
}

void Work(void* (*hold)()) {
  for (int i = 0; i < kHeldBlocks; ++i) {
    memset(hold(), 1, 100);
    FreeSome();
  }
}

int worked = 0;

void InPreinit(int, char**, char**) {
  Work(HoldInPreinit);
  ++worked;
}
[[gnu::section(".preinit_array"), gnu::used]] void (*const preinit)(int, char**,
                                                                    char**) = InPreinit;

[[gnu::constructor(101)]] void InConstructor() {
  Work(HoldInConstructor);
  ++worked;
}

struct Static {
  ~Static() { Work(HoldInStaticDestructor); }
  std::vector<int> content = std::vector<int>(1000);
};
const Static static_object;

struct ThreadLocal {
  ~ThreadLocal() { Work(HoldInThreadLocalDestructor); }
  std::string content = std::string(100, 't');
};
thread_local ThreadLocal thread_local_object;

pthread_key_t key;
std::atomic<int> key_rounds = 0;

// Each round sets the key again, for as long as the C library asks.
void KeyDestructor(void* block) {
  free(block);
  if (key_rounds.fetch_add(1) == 0) Work(HoldInKeyDestructor);
  pthread_setspecific(key, malloc(50));
}

[[gnu::destructor]] void InDestructor() { delete new std::string(100, 'd'); }

}  // namespace

int main() {
  pthread_key_create(&key, KeyDestructor);
  std::thread([] {
    Work(HoldInThread);
    pthread_setspecific(key, malloc(50));
    if (thread_local_object.content.size() != 100) abort();
  }).join();
  std::atexit([] { Work(HoldInAtexit); });
  std::printf("before main %d, library %d, rounds of key destructors %d\n", worked,
              LibraryConstructorWorked(), key_rounds.load());
  const char* const names[] = {
      "HoldInPreinit",       "HoldInConstructor", "HoldInThreadLocalDestructor",
      "HoldInKeyDestructor", "HoldInAtexit",      "HoldInStaticDestructor",
      "HoldInThread"};
  for (int i = 0; i < 7; ++i)
    std::printf("held %s %d %d\n", names[i], kHeldBlocks, kHeldBlocks * (2001 + i));
  std::printf("freed FreeSome\n");
  return 0;
}
