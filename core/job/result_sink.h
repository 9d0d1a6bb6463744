// Where a job's rows go: the result file, the checkpoint, and memory for those that will be
// verified.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "core/io/result.h"
#include "core/job/checkpoint.h"
#include "core/matrix/dtype.h"
#include "core/search/search.h"

namespace tiny_knn {

// Thread-compatible. The writer and the checkpoint outlive it.
class ResultSink : public TopKSink {
 public:
  // `keep`: queries whose rows stay in memory, in ascending order.
  ResultSink(ResultWriter& writer, std::vector<int64_t> keep);

  // From now on rows are also kept in the checkpoint.
  void set_checkpoint(Checkpoint* checkpoint) { checkpoint_ = checkpoint; }

  absl::Status Take(int64_t first_query, const TopKView& results) override;

  struct Row {
    std::vector<int64_t> indices;
    std::vector<std::byte> scores;
  };
  // Query index to its row, for every kept query that was taken.
  std::map<int64_t, Row>& rows() { return rows_; }
  // What taking took.
  double seconds() const { return seconds_; }

 private:
  ResultWriter& writer_;
  const std::vector<int64_t> keep_;
  Checkpoint* checkpoint_ = nullptr;
  std::map<int64_t, Row> rows_;
  double seconds_ = 0;
};

// A writer that takes from each row the doc with its query's own index, and leaves the place that
// is left over at the end to no doc: index -1, score NaN. Rows hold `k` docs.
std::unique_ptr<ResultWriter> MakeSelfDroppingWriter(std::unique_ptr<ResultWriter> writer,
                                                     int64_t k, DType score_dtype);

}  // namespace tiny_knn
