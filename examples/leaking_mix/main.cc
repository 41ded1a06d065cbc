// A service with one leak among things that only look like one. It knows nothing of heapflare.
//
//   leaking_mix [--seed=N] [--seconds=S] [--rate=BYTES_PER_SECOND] [--speed=F]
//
// Requests arrive at random and allocate --rate bytes a second (20 MB). One byte of a hundred goes
// to AuditLog::Remember, which never lets go of it. Besides there are
//   PageCache::Insert   a cache of 48 MB that fills within the first minutes and then gives up an
//                       old page for every new one
//   BufferPool::Grow    buffers that are kept and used again: the pool grows ever more slowly
//                       towards 32 MB, with a time constant of 150 s
//   InFlight::Start     requests being answered: about 24 MB at any moment, each for some seconds
//   Handle              scratch memory that a request gives back at its end
// After S seconds (600) it prints one line with the truth, {"leaked": bytes, "cache": ...}, and
// waits until its standard input ends. All clocks and rates run F times as fast as they say: with
// --speed=20 ten minutes pass in half a minute, with the same memory in it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <deque>
#include <list>
#include <memory>
#include <random>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

namespace leaking_mix {

using Random = std::mt19937_64;

struct Block {
  std::unique_ptr<char[]> memory;
  size_t size;
};

// Around `mean`, from a fifth to nearly twice it.
size_t SizeAround(size_t mean, Random* random) {
  return std::uniform_int_distribution<size_t>(mean / 5, mean * 9 / 5)(*random);
}

class AuditLog {
 public:
  [[gnu::noinline]] void Remember(size_t size) {
    entries_.push_back({std::make_unique_for_overwrite<char[]>(size), size});
    bytes_ += size;
  }
  size_t bytes() const { return bytes_; }

 private:
  std::deque<Block> entries_;  // the leak: nobody ever removes one
  size_t bytes_ = 0;
};

class PageCache {
 public:
  bool Has(uint64_t page) const { return pages_.contains(page); }
  [[gnu::noinline]] void Insert(uint64_t page, size_t size) {
    pages_[page] = {std::make_unique_for_overwrite<char[]>(size), size};
    order_.push_back(page);
    bytes_ += size;
    while (bytes_ > kMost) {
      const auto oldest = pages_.find(order_.front());
      order_.pop_front();
      bytes_ -= oldest->second.size;
      pages_.erase(oldest);
    }
  }
  size_t bytes() const { return bytes_; }

 private:
  static constexpr size_t kMost = 48'000'000;
  std::unordered_map<uint64_t, Block> pages_;
  std::list<uint64_t> order_;
  size_t bytes_ = 0;
};

class BufferPool {
 public:
  // One more buffer is in use than there are.
  [[gnu::noinline]] void Grow() {
    buffers_.push_back({std::make_unique_for_overwrite<char[]>(kBuffer), kBuffer});
  }
  size_t bytes() const { return buffers_.size() * kBuffer; }
  // Buffers that are still missing, as the busiest moment that can be will need.
  size_t missing() const { return kMost > bytes() ? (kMost - bytes()) / kBuffer : 0; }

 private:
  static constexpr size_t kMost = 32'000'000;
  static constexpr size_t kBuffer = 64'000;
  std::vector<Block> buffers_;
};

class InFlight {
 public:
  [[gnu::noinline]] void Start(size_t size) {
    requests_.push_back({std::make_unique_for_overwrite<char[]>(size), size});
    bytes_ += size;
  }
  // The one that ends need not be the one that began first.
  void End(Random* random) {
    const size_t which = (*random)() % requests_.size();
    bytes_ -= requests_[which].size;
    requests_[which] = std::move(requests_.back());
    requests_.pop_back();
  }
  size_t bytes() const { return bytes_; }
  static constexpr size_t kUsual = 24'000'000;

 private:
  std::vector<Block> requests_;
  size_t bytes_ = 0;
};

class Service {
 public:
  explicit Service(uint64_t seed) : random_(seed) {}

  // One request; returns what it allocated. `share`: of BufferPool's time constant that has passed
  // since the last one.
  [[gnu::noinline]] size_t Handle(double share) {
    constexpr size_t kMean = 16'000;
    const size_t scratch_bytes = SizeAround(kMean / 2, &random_);
    const auto scratch = std::make_unique_for_overwrite<char[]>(scratch_bytes);
    const size_t kept = SizeAround(kMean / 4, &random_);
    Render(scratch.get(), scratch_bytes);
    in_flight_.Start(kept);
    while (in_flight_.bytes() > InFlight::kUsual) in_flight_.End(&random_);
    size_t cached = 0;
    // Of the pages, some are asked for much more often than others.
    const auto page = static_cast<uint64_t>(1e6 * std::pow(Uniform(), 3));
    if (Uniform() < 0.1 && !cache_.Has(page)) {
      cached = SizeAround(kMean / 4, &random_);
      cache_.Insert(page, cached);
    }
    const size_t bytes = scratch_bytes + kept + cached;
    size_t leaked = 0;
    if (Uniform() < kLeakedShare * static_cast<double>(bytes) / kEntry) {
      leaked = SizeAround(kEntry, &random_);
      audit_log_.Remember(leaked);
    }
    if (Uniform() < share * static_cast<double>(pool_.missing())) pool_.Grow();
    return bytes + leaked;
  }

  void PrintBooks() const {
    printf("{\"leaked\": %zu, \"cache\": %zu, \"pool\": %zu, \"in_flight\": %zu}\n",
           audit_log_.bytes(), cache_.bytes(), pool_.bytes(), in_flight_.bytes());
    fflush(stdout);
  }

 private:
  static constexpr double kLeakedShare = 0.01;
  static constexpr size_t kEntry = 4'000;
  [[gnu::noinline]] static void Render(char* page, size_t size) { memset(page, 0, size / 16); }
  double Uniform() { return std::uniform_real_distribution<>()(random_); }

  Random random_;
  AuditLog audit_log_;
  PageCache cache_;
  BufferPool pool_;
  InFlight in_flight_;
};

int Run(uint64_t seed, double seconds, double rate, double speed) {
  using Clock = std::chrono::steady_clock;
  constexpr double kPoolSeconds = 150;
  constexpr auto kNap = std::chrono::milliseconds(5);
  Service service(seed);
  const auto start = Clock::now();
  double allocated = 0;
  double handled = 0;  // until when, in the seconds of the service
  for (;;) {
    const double now = std::chrono::duration<double>(Clock::now() - start).count() * speed;
    const double until = std::min(now, seconds);
    while (allocated < until * rate) {
      const double at = allocated / rate;
      allocated += static_cast<double>(service.Handle((at - handled) / kPoolSeconds));
      handled = at;
    }
    if (now >= seconds) break;
    std::this_thread::sleep_for(kNap);
  }
  service.PrintBooks();
  char byte;
  while (read(STDIN_FILENO, &byte, 1) > 0) {
  }
  return 0;
}

}  // namespace leaking_mix

int main(int argc, char** argv) {
  double seed = 1;
  double seconds = 600;
  double rate = 20e6;
  double speed = 1;
  const struct {
    std::string_view name;
    double* value;
  } options[] = {
      {"--seed=", &seed}, {"--seconds=", &seconds}, {"--rate=", &rate}, {"--speed=", &speed}};
  for (int i = 1; i < argc; ++i) {
    bool known = false;
    for (const auto& option : options) {
      if (strncmp(argv[i], option.name.data(), option.name.size()) != 0) continue;
      *option.value = atof(argv[i] + option.name.size());
      known = true;
    }
    if (!known) {
      fprintf(stderr, "leaking_mix: no such option '%s'\n", argv[i]);
      return 2;
    }
  }
  return leaking_mix::Run(static_cast<uint64_t>(seed), seconds, rate, speed);
}
