// float32 matrix multiplication, one call on one thread: oneDNN, or for few queries a kernel of our
// own, behind one function.
#pragma once

#include <cstdint>

namespace tiny_knn {

// scores[i * score_stride + j] ~ queries row i . docs row j, for i < num_queries, j < num_docs.
// Strides are in floats. The sum's order and the use of fused operations are unspecified, within
// the error that docs/exactness.md assumes: each of the `dim` products and additions rounds once.
// Uses the calling thread only. Throws std::bad_alloc. Thread-safe.
void MultiplyByTransposed(const float* queries, int64_t query_stride, int64_t num_queries,
                          const float* docs, int64_t doc_stride, int64_t num_docs, int64_t dim,
                          float* scores, int64_t score_stride);

}  // namespace tiny_knn
