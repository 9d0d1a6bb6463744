// float32 matrix multiplication for few queries: bound by how fast docs come from memory, where a
// library's GEMM first copies both sides into panels. Every instruction set through Highway's
// dynamic dispatch.
#pragma once

#include <cstdint>

#include "core/matrix/aligned_vector.h"

namespace tiny_knn {

// Up to so many queries gain from being scored while each doc is at hand: docs/benchmarking.md,
// "Few queries". Up to 16 are multiplied faster here than by oneDNN's sgemm as well, twice as fast
// for 4; 20 to 32 in about the same time.
inline constexpr int64_t kFewQueries = 32;

// A batch of queries as they are multiplied: interleaved, so that a doc meets one stream of them
// instead of as many as there are queries, which evict each other's lines where rows are a multiple
// of a page apart, nearly so, or many.
class FewQueries {
 public:
  // Copies rows [count, dim], `stride` floats apart. Throws std::bad_alloc.
  void Set(const float* rows, int64_t stride, int64_t count, int64_t dim);

  int64_t count() const { return count_; }

  // scores[i * score_stride + j] ~ query i, doc j of the rows [num_docs, dim], `doc_stride` floats
  // apart, with the same bound on the error as MultiplyByTransposed (core/cpu/gemm.h):
  // docs/exactness.md says why. `squared_norms`: null, or [num_docs] sums of squares of the docs,
  // as core/cpu/float32_squares.h has them. Each doc is
  // read from memory once. Any thread.
  void Multiply(const float* docs, int64_t doc_stride, int64_t num_docs, float* scores,
                int64_t score_stride, double* squared_norms) const;

 private:
  int64_t count_ = 0;
  int64_t dim_ = 0;
  // Groups of queries one behind the other, [dim / lanes, queries of the group, lanes], then the
  // columns that fill no vector, [dim % lanes, count].
  AlignedVector<float> packed_;
};

// As MultiplyByTransposed. Throws std::bad_alloc. Thread-safe.
void MultiplyFewQueries(const float* queries, int64_t query_stride, int64_t num_queries,
                        const float* docs, int64_t doc_stride, int64_t num_docs, int64_t dim,
                        float* scores, int64_t score_stride);

}  // namespace tiny_knn
