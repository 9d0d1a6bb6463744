#include "core/cpu/thread_pool.h"

#include <algorithm>

#include "core/search/float_environment.h"

namespace tiny_knn {

ThreadPool::ThreadPool(int threads) {
  workers_.reserve(static_cast<size_t>(threads - 1));
  for (int worker = 1; worker < threads; ++worker) {
    workers_.emplace_back([this, worker] { WorkerLoop(worker); });
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(const std::function<void(int)>& task) {
  {
    const std::lock_guard lock(mutex_);
    task_ = &task;
    running_ = static_cast<int>(workers_.size());
    ++generation_;
  }
  start_.notify_all();
  {
    const ScopedFloatEnvironment environment;
    task(0);
  }
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return running_ == 0; });
  task_ = nullptr;
}

void ThreadPool::WorkerLoop(int worker) {
  const ScopedFloatEnvironment environment;
  int64_t seen = 0;
  while (true) {
    const std::function<void(int)>* task = nullptr;
    {
      std::unique_lock lock(mutex_);
      start_.wait(lock, [&] { return stopping_ || generation_ != seen; });
      if (stopping_) return;
      seen = generation_;
      task = task_;
    }
    (*task)(worker);
    const std::lock_guard lock(mutex_);
    if (--running_ == 0) done_.notify_one();
  }
}

IndexRange PartOf(int64_t size, int64_t part, int64_t parts, int64_t unit) {
  const int64_t units = (size + unit - 1) / unit;
  const int64_t begin = units * part / parts * unit;
  const int64_t end = units * (part + 1) / parts * unit;
  return {std::min(begin, size), std::min(end, size)};
}

}  // namespace tiny_knn
