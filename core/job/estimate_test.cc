#include "core/job/estimate.h"

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "core/cpu/cpu_engine.h"
#include "core/io/row_source.h"
#include "core/job/random_matrix_for_test.h"
#include "core/job/search_rows.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

class CountingProgress : public Progress {
 public:
  explicit CountingProgress(bool cancel) : cancel_(cancel) {}
  void Report(int64_t, int64_t) override {}
  bool cancelled() const override { return cancel_; }

 private:
  bool cancel_;
};

// Rows of memory that claim to be a file's, to be fetched, and which cannot be after a while.
class FailingSource : public RowSource {
 public:
  FailingSource(const RandomMatrix& matrix, int64_t readable_rows)
      : RowSource("docs.npy", DType::kFloat32, matrix.rows, matrix.dim),
        view_(matrix.View()),
        readable_rows_(readable_rows) {}
  absl::StatusOr<MatrixView> Rows(int64_t begin, int64_t end) override {
    return view_.Slice(begin, end);
  }
  bool needs_fetch() const override { return true; }
  absl::Status Fetch(const RowSelection& rows, std::byte* out) override {
    if (rows.begin + rows.count * rows.step > readable_rows_) {
      return absl::DataLossError("docs.npy: was truncated while it was read");
    }
    for (int64_t i = 0; i < rows.count; ++i) {
      std::memcpy(out + i * view_.row_stride_bytes, view_.Row(rows.begin + i * rows.step),
                  static_cast<size_t>(view_.row_stride_bytes));
    }
    return absl::OkStatus();
  }
  void Release() override {}
  absl::Status CheckUnchanged() override { return absl::OkStatus(); }
  int64_t buffer_bytes_per_row() const override { return 0; }

 private:
  MatrixView view_;
  int64_t readable_rows_;
};

PreparedJob Job(const RandomMatrix& queries, std::unique_ptr<RowSource> docs, int64_t k) {
  PreparedJob job;
  job.queries = queries.Source("queries");
  job.docs = std::move(docs);
  job.params = {.k = k};
  job.shape = ShapeOf(*job.queries, *job.docs, job.params);
  job.plan = *PlanRows(job.shape, {.threads = 2});
  return job;
}

TEST(EstimateTest, MeasuresWithTheJobsFilesAndLeavesThemUsable) {
  const RandomMatrix queries(30, 24, 1);
  const RandomMatrix docs(20'000, 24, 2);
  PreparedJob job = Job(queries, std::make_unique<FailingSource>(docs, docs.rows), 7);
  const auto engine = MakeCpuEngine();
  const auto estimate = EstimateSearch(job, *engine, nullptr);
  ASSERT_TRUE(estimate.ok()) << estimate.status();
  EXPECT_GT(estimate->search_seconds, 0);
  EXPECT_GE(estimate->seconds, estimate->search_seconds);
  EXPECT_GE(estimate->seconds, estimate->disk_seconds);
  EXPECT_GT(estimate->read_bytes_per_second, 0);

  Found found(queries.rows, 7);
  ASSERT_TRUE(
      SearchRows(*job.queries, *job.docs, job.params, {}, *engine, nullptr, found.View()).ok());
  EXPECT_EQ(found, Oracle(*job.queries, *job.docs, job.params));
}

TEST(EstimateTest, TimeGrowsWithPassesOverMoreQueries) {
  const RandomMatrix queries(512, 64, 1);
  const RandomMatrix docs(20'000, 64, 2);
  PreparedJob job = Job(queries, docs.Source("docs"), 5);
  const auto engine = MakeCpuEngine();
  const double once = EstimateSearch(job, *engine, nullptr)->seconds;
  // As if there were a thousand times as many, in batches of 512.
  job.shape.num_queries *= 1000;
  job.plan.num_passes = 1000;
  const auto often = EstimateSearch(job, *engine, nullptr);
  EXPECT_GT(often->seconds, 50 * once);
  EXPECT_EQ(often->read_bytes_per_second, 0) << "docs in memory are not read";
}

TEST(EstimateTest, WorksForOneDocOneQueryAndNone) {
  const RandomMatrix one(1, 3, 1);
  const auto engine = MakeCpuEngine();
  PreparedJob job = Job(one, one.Source("docs"), 1);
  EXPECT_GT(EstimateSearch(job, *engine, nullptr)->seconds, 0);
  const RandomMatrix none(0, 3, 1);
  PreparedJob empty = Job(none, one.Source("docs"), 1);
  EXPECT_EQ(EstimateSearch(empty, *engine, nullptr)->seconds, 0);
}

TEST(EstimateTest, IsCancelledAndSaysWhatCannotBeRead) {
  const RandomMatrix queries(3, 24, 1);
  const RandomMatrix docs(20'000, 24, 2);
  const auto engine = MakeCpuEngine();
  PreparedJob job = Job(queries, docs.Source("docs"), 7);
  CountingProgress cancelled(true);
  EXPECT_EQ(EstimateSearch(job, *engine, &cancelled).status().code(), absl::StatusCode::kCancelled);
  PreparedJob truncated = Job(queries, std::make_unique<FailingSource>(docs, 9000), 7);
  EXPECT_EQ(EstimateSearch(truncated, *engine, nullptr).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST(EstimateTest, SaysWhatTakesTheTime) {
  EXPECT_EQ(DescribeEstimate({.seconds = 0.0123}), "0.012 s");
  EXPECT_EQ(DescribeEstimate({.seconds = 4.2,
                              .disk_seconds = 4.2,
                              .search_seconds = 1,
                              .read_bytes_per_second = 1.5e9}),
            "4.2 s, limited by the disk; docs come at 1.50 GB/s");
  EXPECT_EQ(DescribeEstimate({.seconds = 123.4,
                              .disk_seconds = 1,
                              .search_seconds = 123.4,
                              .read_bytes_per_second = 7e9}),
            "123 s, limited by computing; docs come at 7.00 GB/s");
}

}  // namespace
}  // namespace tiny_knn
