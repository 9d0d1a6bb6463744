// A small pool of threads that all run the same function, then wait for each other.
//
// Not oneTBB (Debian's gives false reports under ThreadSanitizer) and not OpenMP (its threads
// belong to the process, not to an engine).
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace tiny_knn {

// Thread-compatible: one Run at a time. Every thread computes under ScopedFloatEnvironment.
class ThreadPool {
 public:
  // `threads` >= 1, the caller's included: a pool of 1 starts no thread.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls task(worker) once on every thread, worker in [0, threads()), and returns when all are
  // done. What one call wrote, the next Run's threads see. Tasks must not throw.
  void Run(const std::function<void(int worker)>& task);

 private:
  void WorkerLoop(int worker);

  std::mutex mutex_;
  std::condition_variable start_;
  std::condition_variable done_;
  const std::function<void(int)>* task_ = nullptr;  // guarded by mutex_
  int64_t generation_ = 0;                          // counts Runs; guarded by mutex_
  int running_ = 0;                                 // workers not done yet; guarded by mutex_
  bool stopping_ = false;                           // guarded by mutex_
  std::vector<std::thread> workers_;
};

// Part `part` of `parts` of the range [0, size), in units of `unit`; parts differ by one unit at
// most.
struct IndexRange {
  int64_t begin;
  int64_t end;
  int64_t size() const { return end - begin; }
};
IndexRange PartOf(int64_t size, int64_t part, int64_t parts, int64_t unit = 1);

}  // namespace tiny_knn
