// float32 matrix multiplication for few queries: bound by how fast docs come from memory, where a
// library's GEMM first copies both sides into panels. Every instruction set through Highway's
// dynamic dispatch.
#pragma once

#include <cstdint>

namespace tiny_knn {

// Up to so many queries are multiplied faster here than by oneDNN's sgemm. Measured with 128 to
// 1,536 dims and docs in memory, on Zen 5 with AVX-512 and with AVX2: twice as fast for 4, a
// quarter less time for 16, about the same for 20 to 24.
inline constexpr int64_t kFewQueries = 16;

// As MultiplyByTransposed (core/cpu/gemm.h), with the same bound on the error: docs/exactness.md
// says why. Each doc row is read from memory once. Throws std::bad_alloc. Thread-safe.
void MultiplyFewQueries(const float* queries, int64_t query_stride, int64_t num_queries,
                        const float* docs, int64_t doc_stride, int64_t num_docs, int64_t dim,
                        float* scores, int64_t score_stride);

}  // namespace tiny_knn
