// What host and kernels of the CUDA engine tell each other: plain data, the same layout on both
// sides. Pointers are to device memory. Compiles with and without nvcc.
//
// Screen (units G of core/search/screen_rules.h). A row x stands on the device as a GEMM row a,
// what is multiplied, with a scale, so that scale * a is about x' (x for ip and l2, x / |x| for
// cosine). For a query q and a doc d
//   s = fl(fl(a_q . a_d) * fl(scale_q * scale_d)),   E = error_factor_q * norm_d +
//   residual_factor_q * residual_d s + lower_d - E  <=  G  <=  s + upper_d + E      up to
//   QueryUnits::absolute_error
// docs/exactness.md derives it; gpu/row_bounds.h computes the numbers.
#pragma once

#include <cstdint>

#include "core/search/screen_rules.h"

namespace tiny_knn {

// How the elements of rows lie in device memory. Values are exact: an integer or a 16-bit float of
// the compute dtype, or float32.
enum class RowType : int32_t { kFloat32, kFloat16, kBFloat16, kInt8 };

// What the screen of a doc is computed from, loaded as one vector of 16 bytes.
struct alignas(16) DocScreen {
  float scale = 0;
  float norm = 0;      // upper bound on |scale * a|
  float residual = 0;  // upper bound on |d' - scale * a|
  float upper = 0;     // offset; +inf for a doc that bypasses the screen
};

// What is asked of few docs.
struct alignas(8) DocTail {
  float lower = 0;  // offset; -inf for a doc that bypasses the screen
  float norm = 0;   // upper bound on |d|, +inf when d is not finite
};

struct alignas(16) QueryScreen {
  float scale = 0;
  float error_factor = 0;
  float residual_factor = 0;
  float unused = 0;
};

struct QueryNorms {
  double norm = 0;          // upper bound on |q|; +inf or NaN when q is not finite
  double squared_norm = 0;  // float64 sum
};

// float64 sums of a row.
struct RowSums {
  double squared_norm = 0;
  double squared_residual = 0;  // of the row less its GEMM row
};

// What preparing rows noticed; kernels add to it.
struct PrepareTally {
  uint64_t nonfinite_rows = 0;
  uint64_t infs_made = 0;     // finite elements that are infinite in the compute dtype
  uint64_t out_of_range = 0;  // integers that the compute dtype cannot hold
};

// Candidates of a batch's queries among the docs of the current chunk, and where each query stands.
// `capacity` entries per query. A query's docs [0, done) of the chunk have been filtered; if its
// list cannot take what survives a tile, done stays where it was, and the tile is filtered again
// after the list was rescored.
struct CandidateLists {
  float* lower = nullptr;    // [num_queries, capacity] lower bounds on G, never NaN
  int32_t* doc = nullptr;    // [num_queries, capacity] index in the chunk
  int32_t* count = nullptr;  // [num_queries]; more than capacity: the tile's survivors did not fit
  int32_t* settled = nullptr;  // [num_queries] count before the tile that is being filtered
  int32_t* done = nullptr;     // [num_queries]
  float* threshold = nullptr;  // [num_queries] in G; only rises
  int32_t capacity = 0;
};

// A scored pair as one number: greater is better, ties at lower index first, no two alike.
// Key of the score (core/search/ranking.h) above the complement of the doc's index in the file.
using PairKey = uint64_t;
inline constexpr PairKey kUnscored = ~PairKey{0};  // no score has the key 0xFFFFFFFF
constexpr PairKey MakePairKey(uint32_t score_key, uint32_t index) {
  return static_cast<PairKey>(score_key) << 32 | (0xFFFFFFFFu - index);
}
constexpr uint32_t ScoreKeyOf(PairKey key) { return static_cast<uint32_t>(key >> 32); }
constexpr uint32_t IndexOf(PairKey key) { return 0xFFFFFFFFu - static_cast<uint32_t>(key); }

// A pair that float64 cannot round.
struct alignas(16) Doubt {
  int32_t query = 0;  // in the batch
  int32_t doc = 0;    // in the chunk
  int32_t slot = 0;   // its key's place: [slot, entry]
  int32_t entry = 0;
};

}  // namespace tiny_knn
