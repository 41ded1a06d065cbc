// A fixed number of threads that run jobs in the order in which they were submitted.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace storefront {

class WorkerPool {
 public:
  using Job = std::function<void()>;

  explicit WorkerPool(size_t workers);
  // Jobs that have not started are dropped; those that have are waited for.
  ~WorkerPool();

  void Submit(Job job);

 private:
  void Run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace storefront
