// Allocates, says whether heapflare records it, and writes a profile: consumer FILE.
#include <heapflare/heapflare.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace consumer {

__attribute__((noinline)) void HoldNew(std::vector<char*>* kept) {
  kept->push_back(new char[1000]);
}

__attribute__((noinline)) void HoldMalloc(std::vector<char*>* kept) {
  kept->push_back(static_cast<char*>(malloc(3000)));
}

}  // namespace consumer

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  std::vector<char*> kept;
  kept.reserve(1000);
  for (int i = 0; i < 100; ++i) consumer::HoldNew(&kept);
  for (int i = 0; i < 50; ++i) consumer::HoldMalloc(&kept);
  for (int i = 0; i < 20; ++i) {
    free(kept.back());
    kept.pop_back();
  }
  std::printf("active %d interval %zu set %d\n", heapflare_active(), heapflare_sample_interval(),
              heapflare_set_sample_interval(1));
  const int error = heapflare_dump(argv[1]);
  std::printf("dump %d\n", error);
  return kept.size() == 130 ? 0 : 1;
}
