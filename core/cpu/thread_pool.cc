#include "core/cpu/thread_pool.h"

#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "core/search/float_environment.h"

namespace tiny_knn {
namespace {

// Threads that meet come a few microseconds after each other as a rule, and to be woken takes tens
// of them. No longer: somebody else may have use for the core.
constexpr std::chrono::microseconds kSpinTime(40);
// Between two looks at the clock.
constexpr int kPauses = 8;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

template <typename Condition>
void ThreadPool::Spin(Condition is_true) {
  const auto end = std::chrono::steady_clock::now() + kSpinTime;
  while (std::chrono::steady_clock::now() < end) {
    for (int i = 0; i < kPauses; ++i) {
      if (is_true()) return;
      Pause();
    }
  }
}

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
    ++generation_;
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
  Spin([this] { return running_ == 0; });
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
    Spin([&] { return generation_ != seen; });
    {
      std::unique_lock lock(mutex_);
      start_.wait(lock, [&] { return generation_ != seen; });
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
