// What is behind the opaque types of tiny_knn.h.
#pragma once

#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "capi/tiny_knn.h"
#include "core/io/row_source.h"
#include "core/job/corpus.h"
#include "core/job/search_rows.h"
#include "core/search/search.h"
#include "gpu/open_engine.h"

// One call at a time uses an object: the second one hears that it is busy.
class tknn_in_use {
 public:
  bool Enter() { return !in_use_.exchange(true, std::memory_order_acquire); }
  void Leave() { in_use_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> in_use_ = false;
};

// Its threads do not exist in a forked child: there it is opened again, and the old one left alone.
struct tknn_engine {
  tiny_knn::EngineOptions options;
  std::string device;
  std::string note;
  std::unique_ptr<tiny_knn::Engine> engine;
  pid_t pid = 0;
  tknn_in_use in_use;

  // The engine, of this process.
  absl::StatusOr<tiny_knn::Engine*> Get() {
    if (pid == getpid()) return engine.get();
    absl::StatusOr<tiny_knn::OpenedEngine> opened = tiny_knn::OpenEngine(options);
    if (!opened.ok()) return opened.status();
    (void)engine.release();
    engine = std::move(opened->engine);
    device = std::string(engine->device());
    pid = getpid();
    return engine.get();
  }
  ~tknn_engine() {
    if (pid != getpid()) (void)engine.release();
  }
};

struct tknn_rows {
  std::unique_ptr<tiny_knn::RowSource> source;
  tknn_in_use in_use;
};

struct tknn_corpus {
  std::unique_ptr<tiny_knn::Corpus> corpus;
  tknn_in_use in_use;
  // What tknn_corpus_kept_bytes says, to threads that are not searching too.
  std::atomic<int64_t> kept_bytes = 0;
};

struct tknn_control : public tiny_knn::Progress {
  void Report(int64_t done, int64_t total) override {
    pairs_total.store(total, std::memory_order_relaxed);
    pairs_done.store(done, std::memory_order_relaxed);
  }
  bool cancelled() const override { return is_cancelled.load(std::memory_order_relaxed); }

  std::atomic<int64_t> pairs_done = 0;
  std::atomic<int64_t> pairs_total = 0;
  std::atomic<bool> is_cancelled = false;
  static_assert(std::atomic<bool>::is_always_lock_free);
};

namespace tiny_knn {

// The enumerations of both sides. InvalidArgument for a value that is none.
absl::StatusOr<Metric> MetricOf(tknn_metric metric);
absl::StatusOr<DType> DTypeOf(tknn_dtype dtype);
tknn_dtype FromDType(DType dtype);
// Nothing for TKNN_DTYPE_AS_STORED.
absl::StatusOr<std::optional<DType>> StoredDTypeOf(tknn_dtype dtype);

absl::StatusOr<SearchParams> ParamsOf(const tknn_search_params& params);
absl::StatusOr<SearchLimits> LimitsOf(const tknn_search_params& params);
tknn_report FromReport(const SearchReport& report);

// InvalidArgument where a pointer that has to be given is NULL: "queries is NULL".
absl::Status CheckGiven(std::initializer_list<std::pair<const char*, const void*>> pointers);

}  // namespace tiny_knn
