// Many independent runs of one kind of allocating, each in a forked child with a box of its own,
// and what is true of each.
//
//   calibration_workload SHAPE DISTRIBUTION THREADS BLOCKS RUNS SEED DIRECTORY [INTERVAL...]
//
// SHAPE       steady     threads allocate and free their own blocks
//             realloc    blocks grow and shrink on the way
//             handover   every second thread frees what the one before it allocated
//             change     the interval goes through INTERVAL... while the threads run; each thread's
//                        next sample comes at once, so that its probabilities are known
//             unsettled  the same without that: a thread's next sample comes when it comes
// DISTRIBUTION of sizes: small, lognormal, pareto, near (of the order of the interval)
//
// Run i writes a profile to DIRECTORY/i.pb.gz and one line: the allocated objects and bytes, live
// objects and bytes; the variances of unbiased estimates of the four; the sum over the box's live
// samples that estimates the last of these; samples that the box lost. Blocks are allocated in
// functions whose names begin with workload_. The seed decides what is done, not what is sampled.
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "heapflare/heapflare.h"
#include "lib/box/reader.h"

extern "C" [[gnu::noinline]] void* workload_allocate(size_t size) {
  void* block = malloc(size);
  asm volatile("" : "+r"(block));  // not a tail call, and not left out
  return block;
}

extern "C" [[gnu::noinline]] void* workload_reallocate(void* old, size_t size) {
  void* block = realloc(old, size);
  asm volatile("" : "+r"(block));
  return block;
}

namespace {

constexpr int kMostThreads = 16;

[[noreturn]] void Die(const char* what) {
  perror(what);
  _exit(1);
}

// Memory that is no part of the profile.
template <typename T>
T* Map(size_t count) {
  void* memory = mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) Die("mmap");
  return static_cast<T*>(memory);
}

struct Block {
  void* address;
  size_t size;
  size_t interval;  // in force when it was allocated
};

// What is true of some blocks, and the variance of unbiased estimates of it.
struct Sums {
  double objects = 0;
  double bytes = 0;
  double objects_variance = 0;
  double bytes_variance = 0;

  void Add(const Block& block, double sign = 1) {
    const auto size = static_cast<double>(block.size);
    const auto interval = static_cast<double>(block.interval);
    // (1 - p) / p with p = 1 - exp(-(size + 1) / interval); interval 1 records everything.
    const double variance = block.interval <= 1 ? 0 : 1 / std::expm1((size + 1) / interval);
    objects += sign;
    bytes += sign * size;
    objects_variance += sign * variance;
    bytes_variance += sign * variance * size * size;
  }
  void Add(const Sums& other) {
    objects += other.objects;
    bytes += other.bytes;
    objects_variance += other.objects_variance;
    bytes_variance += other.bytes_variance;
  }
};

struct Books {
  Sums allocated;
  Sums live;
};

struct Task {
  std::string_view shape;
  std::string_view distribution;
  int threads;
  size_t blocks;  // of all threads
  std::vector<size_t> intervals;
};

class Sizes {
 public:
  Sizes(std::string_view distribution, size_t interval, uint64_t seed)
      : distribution_(distribution), interval_(static_cast<double>(interval)), random_(seed) {}

  size_t Next() {
    const double u = std::uniform_real_distribution<double>(0, 1)(random_);
    if (distribution_ == "small") return 64 + static_cast<size_t>(u * 448);
    if (distribution_ == "near") return static_cast<size_t>(interval_ * (0.1 + 2.9 * u));
    double size = 0;
    if (distribution_ == "pareto") {
      size = 64 * std::pow(1 - u, -1 / 1.2);
    } else {
      size = std::lognormal_distribution<double>(std::log(300), 1)(random_);
    }
    return static_cast<size_t>(std::min(size, 8.0 * (1 << 20)));
  }
  // True with this probability.
  bool Chance(double probability) { return std::bernoulli_distribution(probability)(random_); }
  size_t Below(size_t limit) { return random_() % limit; }

 private:
  std::string_view distribution_;
  double interval_;
  std::mt19937_64 random_;
};

constexpr double kFreed = 0.5;

// One thread's blocks.
class Worker {
 public:
  Worker(const Task& task, size_t blocks, uint64_t seed)
      : task_(task),
        interval_(task.intervals[0]),
        sizes_(task.distribution, interval_, seed),
        blocks_(Map<Block>(blocks + 1)) {}

  Books books;

  void Allocate(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      Block& block = blocks_[live_++];
      block = {.address = nullptr, .size = sizes_.Next(), .interval = interval_};
      block.address = workload_allocate(block.size);
      books.allocated.Add(block);
      books.live.Add(block);
      if (task_.shape == "realloc") Reallocate(blocks_[sizes_.Below(live_)]);
      if (task_.shape != "handover" && sizes_.Chance(kFreed)) FreeOne();
    }
  }

  // Frees some of what another thread allocated, while that one still allocates.
  void FreeBehind(Worker& other, const std::atomic<size_t>& ready, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      while (ready.load(std::memory_order_acquire) <= i) std::this_thread::yield();
      const Block& block = other.blocks_[i];
      if (!sizes_.Chance(kFreed)) continue;
      free(block.address);
      books.live.Add(block, -1);
    }
  }

  // From now on; a block that is certain to be a sample makes the new interval valid at once.
  void Change(size_t interval) {
    if (task_.shape == "change") {
      const Block certain = {
          .address = nullptr, .size = 64 * std::max<size_t>(interval_, 64), .interval = interval_};
      free(workload_allocate(certain.size));
      books.allocated.Add(certain);
    }
    interval_ = interval;
  }

 private:
  void Reallocate(Block& block) {
    const Block before = block;
    block.size = sizes_.Chance(0.5) ? before.size * 2 + 1 : before.size / 2;
    block.interval = interval_;
    block.address = workload_reallocate(before.address, std::max<size_t>(block.size, 1));
    block.size = std::max<size_t>(block.size, 1);
    books.allocated.Add(block);
    books.live.Add(block);
    books.live.Add(before, -1);
  }

  void FreeOne() {
    Block& victim = blocks_[sizes_.Below(live_)];
    free(victim.address);
    books.live.Add(victim, -1);
    victim = blocks_[--live_];
  }

  const Task& task_;
  size_t interval_;
  Sizes sizes_;
  Block* blocks_;
  size_t live_ = 0;
};

void Run(const Task& task, uint64_t seed, Books* books) {
  Worker* workers[kMostThreads];
  std::atomic<size_t> ready[kMostThreads] = {};
  const bool handover = task.shape == "handover";
  const size_t share = task.blocks / (handover ? task.threads / 2 : task.threads);
  pthread_barrier_t barrier;
  pthread_barrier_init(&barrier, nullptr, static_cast<unsigned>(task.threads));
  for (int i = 0; i < task.threads; ++i) workers[i] = new Worker(task, share, seed * 64 + i);
  std::thread threads[kMostThreads];
  for (int i = 0; i < task.threads; ++i) {
    threads[i] = std::thread([&, i] {
      if (handover && i % 2 == 1) {
        workers[i]->FreeBehind(*workers[i - 1], ready[i - 1], share);
      } else if (handover) {
        for (size_t k = 0; k < share; ++k) {
          workers[i]->Allocate(1);
          ready[i].store(k + 1, std::memory_order_release);
        }
      } else {
        const size_t phases = task.intervals.size();
        workers[i]->Allocate(share / phases);
        for (size_t phase = 1; phase < phases; ++phase) {
          if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD &&
              heapflare_set_sample_interval(task.intervals[phase]) != 0) {
            Die("heapflare_set_sample_interval");
          }
          pthread_barrier_wait(&barrier);
          workers[i]->Change(task.intervals[phase]);
          workers[i]->Allocate(share / phases);
        }
      }
    });
  }
  for (int i = 0; i < task.threads; ++i) threads[i].join();
  for (int i = 0; i < task.threads; ++i) {
    books->allocated.Add(workers[i]->books.allocated);
    books->live.Add(workers[i]->books.live);
  }
}

std::string OwnBox() {
  const char* directory = getenv("HEAPFLARE_BOX_DIR");
  DIR* list = directory == nullptr ? nullptr : opendir(directory);
  if (list == nullptr) Die("HEAPFLARE_BOX_DIR");
  const std::string pid = "." + std::to_string(getpid()) + ".";
  std::string found;
  while (const dirent* entry = readdir(list)) {
    const std::string name = entry->d_name;
    if (name.find(pid) != std::string::npos && name.ends_with(".box")) {
      found = directory + ("/" + name);
    }
  }
  closedir(list);
  return found;
}

// The estimated variance of the live bytes, by the samples themselves.
void ReadBox(double* variance, uint64_t* lost) {
  using namespace heapflare;
  const int fd = open(OwnBox().c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status = {};
  if (fd < 0 || fstat(fd, &status) != 0) Die("own box");
  const auto bytes = static_cast<size_t>(status.st_size);
  const void* data = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  base::Text<256> problem;
  box::Reader reader;
  if (data == MAP_FAILED || !reader.Open(data, bytes, &problem)) Die(problem.c_str());
  const box::Header& header = reader.header();
  // The levels that are not in use are holes, which reading would fill.
  uint64_t shares = 0;
  for (uint32_t level = 0; level < header.sample_levels; ++level) shares = shares * 4 + 1;
  const uint64_t slots = header.regions[box::kSamples].capacity / box::kSampleShares * shares;
  *variance = 0;
  for (uint64_t slot = 0; slot < slots; ++slot) {
    box::Sample sample = {};
    if (!reader.sample(slot, &sample)) continue;
    const auto size = static_cast<double>(box::SizeOf(sample));
    const double objects = static_cast<double>(sample.weight) / (1 << box::kObjectShift);
    *variance += size * size * objects * (objects - 1);
  }
  *lost = header.losses.samples;
}

void Report(const Task& task, uint64_t seed, const std::string& profile) {
  Books books;
  Run(task, seed, &books);
  if (const int error = heapflare_dump(profile.c_str()); error != 0) {
    errno = error;
    Die("heapflare_dump");
  }
  double box_variance = 0;
  uint64_t lost = 0;
  ReadBox(&box_variance, &lost);
  const Sums& all = books.allocated;
  const Sums& live = books.live;
  char line[512];
  const int length = snprintf(
      line, sizeof(line), "%.0f %.0f %.0f %.0f %.17g %.17g %.17g %.17g %.17g %lu\n", all.objects,
      all.bytes, live.objects, live.bytes, all.objects_variance, all.bytes_variance,
      std::max(live.objects_variance, 0.0), std::max(live.bytes_variance, 0.0), box_variance, lost);
  if (write(STDOUT_FILENO, line, static_cast<size_t>(length)) != length) Die("write");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 8) return 2;
  Task task = {.shape = argv[1],
               .distribution = argv[2],
               .threads = atoi(argv[3]),
               .blocks = strtoul(argv[4], nullptr, 10),
               .intervals = {heapflare_sample_interval()}};
  for (int i = 8; i < argc; ++i) task.intervals.push_back(strtoul(argv[i], nullptr, 10));
  const uint64_t runs = strtoul(argv[5], nullptr, 10);
  const uint64_t seed = strtoul(argv[6], nullptr, 10);
  if (task.threads < 1 || task.threads > kMostThreads) return 2;
  for (uint64_t run = 0; run < runs; ++run) {
    const pid_t child = fork();
    if (child < 0) Die("fork");
    if (child == 0) {
      Report(task, seed + run, std::string(argv[7]) + "/" + std::to_string(run) + ".pb.gz");
      exit(0);  // a clean exit removes the box
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0) {
      fprintf(stderr, "run %lu ended with status %#x\n", run, static_cast<unsigned>(status));
      return 1;
    }
  }
  return 0;
}
