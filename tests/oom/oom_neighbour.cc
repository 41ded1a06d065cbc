// Fills a memory cgroup from outside the profiled process. Is not profiled itself.
//
//   oom_neighbour anonymous MIB RATE THREADS           memory of its own
//   oom_neighbour tmpfs MIB RATE THREADS FILE          appends to FILE.0, FILE.1, … on a tmpfs
//   oom_neighbour pagecache MIB RATE THREADS FILE      writes FILE, reads it, reads 3/20 of it for
//                                                      two seconds at least, then ends
//
// MIB: how much in total; RATE: MB/s of all threads together, 0 for no limit.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "workload.h"

namespace {

constexpr uint64_t kStep = 256 << 10;

struct Job {
  std::string_view what;
  uint64_t bytes;  // of each thread
  double rate;     // bytes/s of each thread
  std::string file;
};

void Fail(const std::string& what) {
  std::fprintf(stderr, "oom_neighbour: %s: %s\n", what.c_str(), std::strerror(errno));
  std::_Exit(4);
}

void FillMemory(const Job& job) {
  workload::Pace pace(job.rate);
  while (pace.done() < job.bytes) {
    void* memory = mmap(nullptr, kStep, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) Fail("mmap");
    workload::Touch(memory, kStep);
    pace.Did(kStep);
  }
}

int Open(const std::string& file) {
  const int descriptor = open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) Fail(file);
  return descriptor;
}

void Write(const Job& job, int descriptor, uint64_t start) {
  const std::vector<char> buffer(kStep, 'x');
  workload::Pace pace(job.rate);
  for (uint64_t at = 0; at < job.bytes; at += kStep) {
    if (pwrite(descriptor, buffer.data(), kStep, static_cast<off_t>(start + at)) !=
        static_cast<ssize_t>(kStep)) {
      Fail(job.file);
    }
    pace.Did(kStep);
  }
}

void Read(const Job& job, int descriptor, uint64_t start, uint64_t bytes) {
  std::vector<char> buffer(kStep);
  for (uint64_t at = 0; at < bytes; at += kStep) {
    if (pread(descriptor, buffer.data(), kStep, static_cast<off_t>(start + at)) < 0) {
      Fail(job.file);
    }
  }
}

void Work(const Job& job, uint64_t number) {
  if (job.what == "anonymous") return FillMemory(job);
  if (job.what == "tmpfs") return Write(job, Open(job.file + "." + std::to_string(number)), 0);
  const int descriptor = Open(job.file);
  const uint64_t start = number * job.bytes;
  Write(job, descriptor, start);
  Read(job, descriptor, start, job.bytes);
  // What is read again becomes active: the kernel keeps it for longer, but drops it all the same.
  // For so long that whoever watches has looked at it.
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  while (std::chrono::steady_clock::now() < end) Read(job, descriptor, start, job.bytes * 3 / 20);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view what = argc > 1 ? argv[1] : "";
  if (argc < 5 || (what != "anonymous" && argc != 6) ||
      (what != "anonymous" && what != "tmpfs" && what != "pagecache")) {
    std::fprintf(stderr,
                 "usage: oom_neighbour anonymous|tmpfs|pagecache MIB RATE THREADS [FILE]\n");
    return 2;
  }
  const uint64_t threads = std::strtoull(argv[4], nullptr, 10);
  if (threads == 0) return 2;
  const Job job = {.what = what,
                   .bytes = (std::strtoull(argv[2], nullptr, 10) << 20) / threads / kStep * kStep,
                   .rate = std::strtod(argv[3], nullptr) * 1e6 / static_cast<double>(threads),
                   .file = argc == 6 ? argv[5] : ""};
  std::vector<std::thread> workers;
  for (uint64_t i = 0; i < threads; ++i) workers.emplace_back(Work, job, i);
  for (std::thread& worker : workers) worker.join();
  // The memory is to stay.
  if (what != "pagecache") pause();
  return 0;
}
