// The float32 GEMM screen. Its bound, for rows of n floats with |q|, |d| < 2^63:
//   |s - q.d| <= gamma |q||d| + 2^-125 (sqrt(n) (|q| + |d|) + n)
//   gamma = 1.001 (n+8) u / (1 - (n+8) u),  u = 2^-24
// for any order of summation, fused or not, subnormals flushed or not.
// docs/exactness.md has the derivation, and where each constant below comes from.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "core/cpu/few_queries_gemm.h"
#include "core/cpu/index_range.h"
#include "core/cpu/screen.h"
#include "core/matrix/aligned_vector.h"
#include "core/search/screen_rules.h"

namespace tiny_knn {

template <typename T>
class Float32Screen : public Screen<T> {
 public:
  // Holds float32 copies of up to `max_block` docs where they are not float32 already.
  Float32Screen(const SearchParams& params, int64_t dim, int64_t max_block);

  void SetQueries(std::span<const PreparedQuery<T>> queries) override;
  void StartChunk(const MatrixView& sample, const KeptDocs& kept) override;
  void StartPreparedChunk(const KeptDocs& kept) override;
  void SetBlock(const MatrixView& rows, const KeptDocs& kept) override;
  void SetPreparedBlock(const KeptDocs& kept) override;
  absl::Status PrepareDocs(IndexRange docs, int64_t first_row, int64_t chunk_offset,
                           DocBoundArrays& bounds, PrepareCounts& counts) override;
  void ScoreTile(IndexRange queries, IndexRange docs, const TileBounds& bounds,
                 const TileScores& scores) const override;
  bool scores_in_one_pass() const override { return few_queries_.count() > 0; }
  absl::Status PrepareAndScore(const MatrixView& rows, int64_t first_row, const KeptDocs& kept,
                               int64_t first_bound, DocBoundArrays& bounds, PrepareCounts& counts,
                               float* scores, int64_t stride) const override;
  QueryBounds InitialBounds(int64_t query) const override;
  float CandidateErrorFactor(int64_t query) const override {
    return error_factors_[static_cast<size_t>(query)];
  }
  float ThresholdFor(int64_t query, T score) const override;
  T CertainScore(int64_t query, float lower) const override;

  // For screens of the same units and another arithmetic. Any thread.
  // The query as it is multiplied, [dim]: of unit length for cosine.
  const float* query_row(int64_t query) const { return queries_.data() + query * dim_; }
  // The row divided by its norm; `out` may be the row.
  void MakeUnitRow(const T* row, double squared_norm, float* out) const;
  // Norm and offsets of doc `doc` of the bounds; infinite offsets where it cannot be screened.
  // `norm_error`: of the squared norm, relative, beside what SquaredNorm
  // (core/search/row_kernels.h) promises.
  void SetBounds(double squared_norm, bool finite, int64_t doc, DocBoundArrays& bounds,
                 double norm_error = 0) const;
  // The same for a row of floats, [dim], with the sum of its squares that
  // core/cpu/float32_squares.h is about. Returns the squared norm, computed anew where the sum is
  // none; not finite where the row is not, which is counted.
  double SetBoundsBySum(const float* row, double sum, int64_t doc, DocBoundArrays& bounds,
                        PrepareCounts& counts) const;

 private:
  // Whether the rows can be multiplied as they lie, unless unit rows are wanted.
  bool AreFloatRows(const MatrixView& rows) const;
  // PrepareDocs of all `rows`; what is multiplied goes to `out` [rows.rows, dim], which null means
  // are the rows as they lie.
  absl::Status PrepareRows(const MatrixView& rows, int64_t first_row, float* out,
                           int64_t first_bound, DocBoundArrays& bounds,
                           PrepareCounts& counts) const;
  // PrepareAndScore of rows as they lie.
  void ScoreFloatRows(const MatrixView& rows, int64_t first_bound, DocBoundArrays& bounds,
                      PrepareCounts& counts, float* scores, int64_t stride) const;
  // Turns scores of a doc into those of its unit row.
  void DivideByNorm(const float* row, double squared_norm, float* scores, int64_t stride,
                    AlignedVector<float>& scratch) const;

  const SearchParams params_;
  const int64_t dim_;
  const double gamma_;
  const double norm_slack_;       // of a norm that core/cpu/float32_squares.h is about
  AlignedVector<float> queries_;  // [num_queries, dim]
  FewQueries few_queries_;        // the same, unless there are more
  std::vector<QueryUnits> query_units_;
  std::vector<float> error_factors_;
  MatrixView block_;
  bool in_place_ = false;               // the block's rows are float32 as they lie
  float* prepared_rows_ = nullptr;      // [block rows, dim] to write to; null while in_place_
  AlignedVector<float> block_rows_;     // [max_block, dim], where nobody else keeps them
  const float* screen_rows_ = nullptr;  // [block rows, screen_stride_]
  int64_t screen_stride_ = 0;
  const int64_t max_block_;
};

}  // namespace tiny_knn
