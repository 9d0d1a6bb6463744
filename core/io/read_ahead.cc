#include "core/io/read_ahead.h"

#include <algorithm>
#include <system_error>
#include <utility>

namespace tiny_knn {

ReadAhead::ReadAhead(Options options) : options_(std::move(options)) {}

ReadAhead::~ReadAhead() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  moved_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void ReadAhead::Start() {
  const std::lock_guard lock(mutex_);
  if (started_) return;
  started_ = true;
  try {
    thread_ = std::thread([this] { Loop(); });
  } catch (const std::system_error&) {
    // Reading goes on without: slower, and as right.
  }
}

void ReadAhead::SeekTo(int64_t position) {
  const std::lock_guard lock(mutex_);
  if (position < reader_ || position > asked_) asked_ = position;
  reader_ = position;
  if (ShouldAsk()) moved_.notify_one();
}

void ReadAhead::ReachedTo(int64_t position) {
  const std::lock_guard lock(mutex_);
  reader_ = std::max(reader_, position);
  // What is read already need not be asked for.
  asked_ = std::max(asked_, reader_);
  if (ShouldAsk()) moved_.notify_one();
}

bool ReadAhead::ShouldAsk() const {
  return asked_ < options_.end &&
         std::min(asked_ + options_.step, options_.end) <= reader_ + options_.window;
}

void ReadAhead::Loop() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (!ShouldAsk()) {
      moved_.wait(lock);
      continue;
    }
    const int64_t begin = asked_;
    const int64_t end = std::min(begin + options_.step, options_.end);
    asked_ = end;
    lock.unlock();
    options_.ask(begin, end);
    lock.lock();
  }
}

}  // namespace tiny_knn
