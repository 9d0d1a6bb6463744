// Engines that do what a test wants to go wrong.
#pragma once

#include <chrono>
#include <memory>
#include <new>
#include <string_view>
#include <thread>

#include "absl/status/status.h"
#include "core/search/engine.h"
#include "gpu/open_engine.h"

namespace tiny_knn {

// Searches until it is cancelled.
class EndlessEngine : public Engine {
 public:
  std::string_view device() const override { return "cuda"; }

 protected:
  absl::Status SearchBatch(RowSource& queries, int64_t, int64_t, RowSource& docs,
                           const SearchParams&, const SearchPlan&, Progress& progress,
                           const TopKView&, SearchReport&) override {
    while (!progress.cancelled()) {
      progress.Report(1, queries.rows() * docs.rows());
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return absl::CancelledError("cancelled");
  }
};

// Has no memory to keep docs in.
class PoorEngine : public Engine {
 public:
  std::unique_ptr<WarmDocs> MakeWarmDocs(const ProblemShape&, const SearchPlan&) const override {
    throw std::bad_alloc();
  }
  std::string_view device() const override { return "cuda"; }

 protected:
  absl::Status SearchBatch(RowSource&, int64_t, int64_t, RowSource&, const SearchParams&,
                           const SearchPlan&, Progress&, const TopKView&, SearchReport&) override {
    return absl::InternalError("not reached");
  }
};

// "cuda:7" is endless, "cuda:8" has no memory; others are real.
inline absl::StatusOr<OpenedEngine> OpenEngineForTest(const EngineOptions& options) {
  OpenedEngine opened;
  if (options.device == "cuda:7") {
    opened.engine = std::make_unique<EndlessEngine>();
    return opened;
  }
  if (options.device == "cuda:8") {
    opened.engine = std::make_unique<PoorEngine>();
    return opened;
  }
  return OpenEngine(options);
}

}  // namespace tiny_knn
