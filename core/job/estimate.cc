#include "core/job/estimate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "core/io/row_source.h"
#include "core/job/search_rows.h"
#include "core/matrix/aligned_vector.h"
#include "core/matrix/dtype.h"
#include "core/matrix/matrix_view.h"
#include "core/search/planner.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

using Clock = std::chrono::steady_clock;

// What is read to measure, at most; in pieces, and no longer than so.
constexpr int64_t kReadBytes = int64_t{128} << 20;
constexpr int64_t kReadPieceBytes = int64_t{1} << 20;
constexpr double kReadSeconds = 0.3;
// Searches of ever more docs, until one takes as long as this.
constexpr double kEnoughSeconds = 0.25;
constexpr int64_t kMostDocBytes = int64_t{256} << 20;
constexpr int64_t kMostQueries = 1024;
// The first one: so many multiplications, some hundredths of a second.
constexpr double kFirstProducts = 4e9;
// Fewer docs are screened otherwise than many.
constexpr int64_t kLeastDocs = 8192;
constexpr int64_t kGrowth = 4;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Rows [begin, end) of the source, at `out`.
absl::Status CopyRows(RowSource& source, int64_t begin, int64_t end, std::byte* out) {
  const int64_t row_bytes = source.dim() * ItemSize(source.dtype());
  const absl::StatusOr<std::vector<MatrixView>> views = source.StartRows(begin, end);
  if (!views.ok()) return views.status();
  absl::Status status;
  if (source.needs_fetch()) {
    const int64_t piece = std::max<int64_t>(1, kReadPieceBytes / row_bytes);
    for (int64_t row = begin; row < end && status.ok(); row += piece) {
      status = source.Fetch({row, std::min(piece, end - row)}, out + (row - begin) * row_bytes);
    }
  } else {
    const MatrixView& view = views->front();
    for (int64_t row = 0; row < view.rows; ++row) {
      const auto* const from = static_cast<const std::byte*>(view.Row(row));
      std::copy(from, from + row_bytes, out + row * row_bytes);
    }
  }
  source.Release();
  return status;
}

struct ReadRates {
  double first = 0;  // bytes/s of the docs as they came
  double again = 0;  // the same bytes, now in the page cache; on one thread
};

// Reads a stretch in the middle as the search would, a piece at a time and then again.
absl::StatusOr<ReadRates> MeasureReading(PreparedJob& job) {
  RowSource& docs = *job.docs;
  const int64_t row_bytes = docs.dim() * ItemSize(docs.dtype());
  const int64_t piece = std::max<int64_t>(1, kReadPieceBytes / row_bytes);
  const int64_t most =
      std::min(std::max(piece, kReadBytes / row_bytes), std::min(docs.rows(), job.plan.doc_chunk));
  const int64_t begin = (docs.rows() - most) / 2;
  AlignedVector<std::byte> memory(static_cast<size_t>(piece * row_bytes));
  int64_t end = begin;
  docs.ReadPastCache(job.plan.reads_past_cache);
  const Clock::time_point start = Clock::now();
  absl::Status status;
  if (docs.needs_fetch()) status = docs.StartRows(begin, begin + most).status();
  const auto read = [&](int64_t from, int64_t to) {
    return docs.needs_fetch() ? docs.Fetch({from, to - from}, memory.data())
                              : CopyRows(docs, from, to, memory.data());
  };
  while (status.ok() && end < begin + most &&
         (end == begin || SecondsSince(start) < kReadSeconds)) {
    const int64_t next = std::min(end + piece, begin + most);
    status = read(end, next);
    end = next;
  }
  const double bytes = static_cast<double>((end - begin) * row_bytes);
  ReadRates rates;
  rates.first = bytes / std::max(SecondsSince(start), 1e-9);
  const Clock::time_point again = Clock::now();
  for (int64_t row = begin; status.ok() && row < end; row += piece) {
    status = read(row, std::min(row + piece, end));
  }
  rates.again = bytes / std::max(SecondsSince(again), 1e-9);
  docs.Release();
  docs.ReadPastCache(false);
  if (!status.ok()) return status;
  return rates;
}

// Seconds that the search of `num_queries` queries in the first `num_docs` docs takes, in memory.
absl::StatusOr<double> TimeSearch(PreparedJob& job, int64_t num_queries, int64_t num_docs,
                                  const AlignedVector<std::byte>& memory, Engine& engine,
                                  Progress* progress) {
  RowSource& docs = *job.docs;
  const int64_t row_bytes = docs.dim() * ItemSize(docs.dtype());
  const auto part_of_docs = MakeMemoryRowSource(
      docs.name(), {memory.data(), docs.dtype(), num_docs, docs.dim(), row_bytes});
  const absl::StatusOr<MatrixView> query_rows = job.queries->Rows(0, num_queries);
  if (!query_rows.ok()) return query_rows.status();
  const auto part_of_queries = MakeMemoryRowSource(job.queries->name(), *query_rows);
  SearchParams params = job.params;
  const double share = static_cast<double>(num_docs) / static_cast<double>(docs.rows());
  params.k = std::clamp<int64_t>(std::llround(static_cast<double>(params.k) * share), 1,
                                 std::max<int64_t>(1, num_docs - (params.exclude_self ? 1 : 0)));
  std::vector<int64_t> indices(static_cast<size_t>(num_queries * params.k));
  const DType score_dtype = WorkingDType(params.compute_dtype);
  AlignedVector<std::byte> scores(indices.size() * static_cast<size_t>(ItemSize(score_dtype)));
  const Clock::time_point start = Clock::now();
  const absl::StatusOr<SearchReport> report =
      SearchRows(*part_of_queries, *part_of_docs, params,
                 {.threads = job.plan.threads, .memory_limit_bytes = 0, .batch_size = 0}, engine,
                 progress, {num_queries, params.k, score_dtype, scores.data(), indices.data()});
  if (!report.ok()) return report.status();
  return SecondsSince(start);
}

// Seconds of computing for all queries and docs.
absl::StatusOr<double> MeasureSearching(PreparedJob& job, Engine& engine, Progress* progress) {
  RowSource& docs = *job.docs;
  const int64_t row_bytes = docs.dim() * ItemSize(docs.dtype());
  const int64_t num_queries = std::min(job.plan.query_batch, kMostQueries);
  const int64_t most_docs =
      std::min(docs.rows(), std::max<int64_t>(kLeastDocs, kMostDocBytes / row_bytes));
  const double products_per_doc = static_cast<double>(num_queries * docs.dim());
  int64_t num_docs = std::min(
      most_docs, std::max(kLeastDocs, static_cast<int64_t>(kFirstProducts / products_per_doc)));
  AlignedVector<std::byte> memory;
  int64_t copied = 0;
  while (true) {
    memory.resize(static_cast<size_t>(num_docs * row_bytes));
    const absl::Status status =
        CopyRows(docs, copied, num_docs, memory.data() + copied * row_bytes);
    if (!status.ok()) return status;
    copied = num_docs;
    const absl::StatusOr<double> seconds =
        TimeSearch(job, num_queries, num_docs, memory, engine, progress);
    if (!seconds.ok()) return seconds.status();
    if (*seconds >= kEnoughSeconds || num_docs == most_docs) {
      const double docs_share = static_cast<double>(docs.rows()) / static_cast<double>(num_docs);
      return *seconds * docs_share * static_cast<double>(job.shape.num_queries) /
             static_cast<double>(num_queries);
    }
    num_docs = std::min(num_docs * kGrowth, most_docs);
  }
}

}  // namespace

absl::StatusOr<SearchEstimate> EstimateSearch(PreparedJob& job, Engine& engine,
                                              Progress* progress) {
  SearchEstimate estimate;
  if (job.shape.num_queries == 0) return estimate;
  const double bytes =
      static_cast<double>(job.docs->stored_bytes()) * static_cast<double>(job.plan.num_passes);
  double copy_seconds = 0;
  if (!job.docs->is_callers_memory()) {
    const absl::StatusOr<ReadRates> rates = MeasureReading(job);
    if (!rates.ok()) return rates.status();
    // What is slower the first time is the disk's, and passes while threads compute. The rest is
    // shared by the threads that fetch.
    estimate.read_bytes_per_second = rates->first;
    estimate.disk_seconds = bytes * std::max(0.0, 1 / rates->first - 1 / rates->again);
    const int threads = job.docs->needs_fetch() ? job.plan.threads : 1;
    copy_seconds = bytes / rates->again / threads;
  }
  const absl::StatusOr<double> searching = MeasureSearching(job, engine, progress);
  if (!searching.ok()) return searching.status();
  estimate.search_seconds = *searching + copy_seconds;
  estimate.seconds = std::max(estimate.disk_seconds, estimate.search_seconds);
  return estimate;
}

std::string DescribeEstimate(const SearchEstimate& estimate) {
  std::string text = fmt::format("{:.2g} s", estimate.seconds);
  if (estimate.seconds >= 10) text = fmt::format("{:.0f} s", estimate.seconds);
  if (estimate.read_bytes_per_second == 0) return text;
  return text +
         fmt::format(", limited by {}; docs come at {:.2f} GB/s",
                     estimate.disk_seconds > estimate.search_seconds ? "the disk" : "computing",
                     estimate.read_bytes_per_second / 1e9);
}

}  // namespace tiny_knn
