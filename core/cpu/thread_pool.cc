#include "core/cpu/thread_pool.h"

#include <fmt/format.h>

#include <memory>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "core/search/float_environment.h"

namespace tiny_knn {

absl::StatusOr<std::unique_ptr<ThreadPool>> ThreadPool::Start(int threads) {
  std::unique_ptr<ThreadPool> pool(new ThreadPool);
  pool->workers_.reserve(static_cast<size_t>(threads - 1));
  for (int worker = 1; worker < threads; ++worker) {
    try {
      pool->workers_.emplace_back([self = pool.get(), worker] { self->WorkerLoop(worker); });
    } catch (const std::system_error& error) {
      // The pool's destructor ends those that did start.
      return absl::ResourceExhaustedError(
          fmt::format("cannot start {} threads, only {}: {}; use a smaller --threads", threads,
                      worker, error.code().message()));
    }
  }
  return pool;
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
    RunGuarded(task, 0);
  }
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return running_ == 0; });
  task_ = nullptr;
  if (thrown_ != nullptr) std::rethrow_exception(std::exchange(thrown_, nullptr));
}

void ThreadPool::RunGuarded(const std::function<void(int)>& task, int worker) {
  try {
    task(worker);
  } catch (...) {
    const std::lock_guard lock(mutex_);
    if (thrown_ == nullptr) thrown_ = std::current_exception();
  }
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
    RunGuarded(*task, worker);
    const std::lock_guard lock(mutex_);
    if (--running_ == 0) done_.notify_one();
  }
}

}  // namespace tiny_knn
