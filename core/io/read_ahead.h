// A thread that asks the system for what a reader will want next, so that the disk works while the
// reader computes.
//
// It brings bytes of a file into the page cache, no further than a window ahead of the reader, and
// touches no memory of this process: what it asked for and nobody reads costs nothing but the
// disk's time. Whatever goes wrong on the way, the reader finds out when it reads.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

namespace tiny_knn {

// How far a thread asks for rows ahead of who reads them: what a fast disk delivers in some tens of
// milliseconds, the time that compute threads may spend without reading.
inline constexpr int64_t kReadAheadBytes = int64_t{64} << 20;

// Positions are rows, or whatever else the owner counts in. Thread-safe; the thread starts with
// Start and has ended when the destructor returns.
class ReadAhead {
 public:
  struct Options {
    int64_t end = 0;     // nothing at or beyond this is asked for
    int64_t window = 1;  // the most that is asked for ahead of the reader
    int64_t step = 1;    // as much at a time, and each time the reader has moved so far
    // Asks for [begin, end): on the thread, without waiting for the data if the system can. Short:
    // the destructor waits for it.
    std::function<void(int64_t begin, int64_t end)> ask;
  };

  // `options.ask` must not use what is gone before this is.
  explicit ReadAhead(Options options);
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // Begins to ask, from where the reader is. Where the system gives no thread, nothing is asked
  // for.
  void Start();

  // The reader is about to read from `position` on, wherever it was before. What was asked for
  // right ahead of it stays asked for.
  void SeekTo(int64_t position);

  // It has read up to `position`; readers on several threads may say so in any order.
  void ReachedTo(int64_t position);

 private:
  void Loop();
  bool ShouldAsk() const;  // REQUIRES: mutex_ is held

  const Options options_;
  std::mutex mutex_;
  std::condition_variable moved_;
  // Guarded by mutex_.
  int64_t reader_ = 0;
  int64_t asked_ = 0;  // all before it was asked for, or need not be
  bool stopping_ = false;
  bool started_ = false;
  std::thread thread_;
};

}  // namespace tiny_knn
