// Libraries that come and go. See program.h.
#include <dlfcn.h>
#include <pthread.h>

#include "tests/survival/program.h"

namespace survival {
namespace {

using PluginAllocate = void* (*)(size_t);

struct Plugin {
  void* handle;
  PluginAllocate allocate;
};

Plugin Load(const char* path) {
  Plugin plugin = {};
  plugin.handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  CHECK(plugin.handle != nullptr);
  plugin.allocate = reinterpret_cast<PluginAllocate>(dlsym(plugin.handle, "plugin_allocate"));
  CHECK(plugin.allocate != nullptr);
  return plugin;
}

// Loads the libraries in turn, each into the place that the one before left, and allocates in them:
// library k keeps k + 1 blocks a round. All live blocks are the libraries'.
int SamePlace(int argc, char** argv) {
  CHECK(argc >= 3);
  const int rounds = atoi(argv[0]);
  const int pause_ms = atoi(argv[1]);
  const int libraries = argc - 2;
  void* first_place = nullptr;
  int elsewhere = 0;
  for (int i = 0; i < rounds; ++i) {
    for (int k = 0; k < libraries; ++k) {
      const Plugin plugin = Load(argv[2 + k]);
      void* const place = reinterpret_cast<void*>(plugin.allocate);
      if (first_place == nullptr) first_place = place;
      if (place != first_place) ++elsewhere;
      for (int block = 0; block <= k; ++block) plugin.allocate(kBlock);
      // Long enough that looks at the map fall in between; zero: faster than any.
      if (pause_ms > 0) usleep(static_cast<useconds_t>(pause_ms) * 1000);
      CHECK(dlclose(plugin.handle) == 0);
    }
  }
  // Otherwise the test would test nothing.
  CHECK(elsewhere == 0);
  printf("rounds %d\n", rounds);
  return End();
}

std::atomic<bool> stop = false;

[[gnu::noinline]] void AllocateDeep(int depth) {
  if (depth > 0) {
    AllocateDeep(depth - 1);
    Churn(1, 1);
    return;
  }
  Churn(2);
}

// One thread loads and unloads; others allocate, in the libraries too, and throw through them.
int WhileOthersAllocate(int argc, char** argv) {
  CHECK(argc >= 2);
  const int rounds = atoi(argv[0]);
  pthread_t threads[3];
  for (pthread_t& thread : threads) {
    CHECK(pthread_create(
              &thread, nullptr,
              [](void*) -> void* {
                while (!stop) {
                  AllocateDeep(30);
                  try {
                    throw 1;
                  } catch (int) {
                  }
                }
                return nullptr;
              },
              nullptr) == 0);
  }
  for (int i = 0; i < rounds; ++i) {
    const Plugin plugin = Load(argv[1 + i % (argc - 1)]);
    for (int k = 0; k < 10; ++k) free(plugin.allocate(kBlock));
    CHECK(dlclose(plugin.handle) == 0);
  }
  stop = true;
  for (const pthread_t thread : threads) pthread_join(thread, nullptr);
  printf("loaded %d\n", rounds);
  return End();
}

constexpr Scenario kScenarios[] = {
    {"same_place", SamePlace},
    {"while_others_allocate", WhileOthersAllocate},
};

}  // namespace
}  // namespace survival

int main(int argc, char** argv) { return survival::RunScenario(survival::kScenarios, argc, argv); }
