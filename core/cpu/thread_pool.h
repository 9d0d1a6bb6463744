// A small pool of threads that all run the same function, then wait for each other.
//
// Not oneTBB (Debian's gives false reports under ThreadSanitizer) and not OpenMP (its threads
// belong to the process, not to an engine).
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"

namespace tiny_knn {

// Thread-compatible: one Run at a time. Every thread computes under ScopedFloatEnvironment.
class ThreadPool {
 public:
  // `threads` >= 1, the caller's included: a pool of 1 starts no thread. ResourceExhausted when the
  // system does not let this process have so many.
  static absl::StatusOr<std::unique_ptr<ThreadPool>> Start(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls task(worker) once on every thread, worker in [0, threads()), and returns when all are
  // done. What one call wrote, the next Run's threads see. If tasks throw (out of memory), the
  // first exception is thrown again here, when all are done.
  void Run(const std::function<void(int worker)>& task);

 private:
  ThreadPool() = default;
  void WorkerLoop(int worker);
  // Waits a little for what is about to be true, before somebody sleeps until it is.
  template <typename Condition>
  static void Spin(Condition is_true);
  // Runs the task and keeps what it throws.
  void RunGuarded(const std::function<void(int)>& task, int worker);

  std::mutex mutex_;
  std::condition_variable start_;
  std::condition_variable done_;
  const std::function<void(int)>* task_ = nullptr;  // guarded by mutex_
  // Changed under mutex_, and looked at without it by who spins.
  std::atomic<int64_t> generation_ = 0;  // counts Runs, and the end of all
  std::atomic<int> running_ = 0;         // workers not done yet
  bool stopping_ = false;                // guarded by mutex_
  std::exception_ptr thrown_;            // the first of a Run; guarded by mutex_
  std::vector<std::thread> workers_;
};

}  // namespace tiny_knn
