#include <cuda_fp16.h>

#include <bit>
#include <cstdint>
#include <optional>

#include "core/search/canonical_nan.h"
#include "core/search/certain_rounding.h"
#include "core/search/ranking.h"
#include "gpu/rescore_kernels.h"

namespace tiny_knn {
namespace {

constexpr int kThreads = 128;
constexpr int kWarpThreads = 32;
constexpr int kWarps = kThreads / kWarpThreads;
constexpr unsigned kWholeWarp = 0xFFFFFFFFu;
// Blocks that share a query's candidates. A few, so that a batch of one query fills the device,
// too.
constexpr int kBlocksPerQuery = 32;

// Elements of a row as they lie, and their values.
struct Float32Row {
  using Stored = float;
  __device__ static float Value(float stored) { return stored; }
};
struct Float16Row {
  using Stored = uint16_t;
  __device__ static float Value(uint16_t stored) { return __half2float(__ushort_as_half(stored)); }
};
struct BFloat16Row {
  using Stored = uint16_t;
  __device__ static float Value(uint16_t stored) {
    return std::bit_cast<float>(static_cast<uint32_t>(stored) << 16);
  }
};
struct Int8Row {
  using Stored = int8_t;
  __device__ static float Value(int8_t stored) { return static_cast<float>(stored); }
};

// What one load fetches.
template <typename Stored>
struct alignas(16) Vector {
  static constexpr int kCount = 16 / sizeof(Stored);
  Stored values[kCount];
};

__device__ double SumOverWarp(double value) {
  for (int distance = kWarpThreads / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kWholeWarp, value, distance);
  }
  return value;
}

struct Sums {
  double first = 0;    // q.d, or |q - d|^2
  double squared = 0;  // d.d, for cosine
};

// By a whole warp; every lane gets the sums. A chain of additions is no longer than dim.
template <typename Row>
__device__ Sums SumPair(const RescoreArgs& args, int query, int doc) {
  using Stored = typename Row::Stored;
  using Vec = Vector<Stored>;
  const auto* q = reinterpret_cast<const Vec*>(static_cast<const Stored*>(args.query_rows) +
                                               static_cast<int64_t>(query) * args.stride);
  const auto* d = reinterpret_cast<const Vec*>(static_cast<const Stored*>(args.doc_rows) +
                                               static_cast<int64_t>(doc) * args.stride);
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  Sums sums;
  for (int j = lane; j < args.stride / Vec::kCount; j += kWarpThreads) {
    const Vec qs = q[j];
    const Vec ds = d[j];
    for (int v = 0; v < Vec::kCount; ++v) {
      const double a = static_cast<double>(Row::Value(qs.values[v]));
      const double b = static_cast<double>(Row::Value(ds.values[v]));
      if (args.is_l2) {
        const double difference = a - b;
        sums.first = fma(difference, difference, sums.first);
      } else {
        sums.first = fma(a, b, sums.first);
      }
      if (args.is_cosine) sums.squared = fma(b, b, sums.squared);
    }
  }
  sums.first = SumOverWarp(sums.first);
  if (args.is_cosine) sums.squared = SumOverWarp(sums.squared);
  return sums;
}

__device__ bool IsFiniteValue(double value) { return value - value == 0; }

__device__ float Canonical(double non_finite) {
  return non_finite != non_finite ? CanonicalNan<float>() : static_cast<float>(non_finite);
}

// The correctly rounded score, or nothing where the sums leave a doubt.
__device__ std::optional<float> ScoreOf(const RescoreArgs& args, const Sums& sums, int query,
                                        int doc) {
  const QueryNorms& norms = args.queries[query];
  if (args.is_cosine) {
    if (!IsFiniteValue(norms.squared_norm) || !IsFiniteValue(sums.squared)) {
      return CanonicalNan<float>();
    }
    // Squares of floats never underflow. Integers that sum to 0 have the score 0.
    if (norms.squared_norm == 0 || sums.squared == 0) return 0.0F;
    if (args.has_exact_sums && sums.first == 0) return 0.0F;
    const double cosine = sums.first / sqrt(norms.squared_norm * sums.squared);
    return RoundIfCertain(cosine, CosineError(args.dim));
  }
  const double score = args.is_l2 ? -sums.first : sums.first;
  if (!IsFiniteValue(score)) return Canonical(score);
  if (args.has_exact_sums) return RoundIfCertain(score, 0);
  const double error =
      args.is_l2
          ? SquaredDistanceError(args.dim, sums.first)
          : InnerProductError(args.dim, norms.norm * static_cast<double>(args.tails[doc].norm));
  return RoundIfCertain(score, error);
}

template <typename Row>
__global__ void __launch_bounds__(kThreads) RescoreKernel(RescoreArgs args) {
  const int slot = static_cast<int>(blockIdx.y);
  const int query = args.selected != nullptr ? args.selected[slot] : args.first_query + slot;
  const int count = args.lists.count[query];
  const int warp =
      static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / kWarpThreads;
  const int warps = static_cast<int>(gridDim.x) * kWarps;
  const int32_t* const docs = args.lists.doc + static_cast<int64_t>(query) * args.lists.capacity;
  PairKey* const keys = args.keys + static_cast<int64_t>(slot) * args.lists.capacity;
  for (int i = warp; i < count; i += warps) {
    if (args.only_unscored && keys[i] != kUnscored) continue;
    const int doc = docs[i];
    const Sums sums = SumPair<Row>(args, query, doc);
    __syncwarp();  // all lanes have looked at the key
    if (threadIdx.x % kWarpThreads != 0) continue;
    const std::optional<float> score = ScoreOf(args, sums, query, doc);
    if (score.has_value()) {
      keys[i] = MakePairKey(KeyOfScore(*score), args.chunk_begin + static_cast<uint32_t>(doc));
      continue;
    }
    keys[i] = kUnscored;
    const int doubt = atomicAdd(args.num_doubts, 1);
    if (doubt < args.doubt_capacity) args.doubts[doubt] = {query, doc, slot, i};
  }
}

template <typename Row>
__global__ void __launch_bounds__(kThreads) GatherKernel(RescoreArgs args, float* values) {
  using Stored = typename Row::Stored;
  const int64_t doubt = blockIdx.x;
  const Stored* const row = static_cast<const Stored*>(args.doc_rows) +
                            static_cast<int64_t>(args.doubts[doubt].doc) * args.stride;
  for (int j = static_cast<int>(threadIdx.x); j < args.dim; j += kThreads) {
    values[doubt * args.dim + j] = Row::Value(row[j]);
  }
}

__global__ void __launch_bounds__(kThreads)
    ScatterKernel(RescoreArgs args, int32_t num_doubts, const PairKey* resolved) {
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (i >= num_doubts) return;
  const Doubt doubt = args.doubts[i];
  args.keys[static_cast<int64_t>(doubt.slot) * args.lists.capacity + doubt.entry] = resolved[i];
}

// launch(Row()) for the row type.
template <typename Launch>
cudaError_t ForRowType(RowType type, Launch launch) {
  switch (type) {
    case RowType::kFloat32:
      launch(Float32Row());
      break;
    case RowType::kFloat16:
      launch(Float16Row());
      break;
    case RowType::kBFloat16:
      launch(BFloat16Row());
      break;
    case RowType::kInt8:
      launch(Int8Row());
      break;
  }
  return cudaGetLastError();
}

}  // namespace

cudaError_t RescoreCandidates(const RescoreArgs& args, cudaStream_t stream) {
  if (args.num_slots == 0) return cudaSuccess;
  const int most = (args.lists.capacity + kWarps - 1) / kWarps;
  const dim3 grid(most < kBlocksPerQuery ? most : kBlocksPerQuery, args.num_slots);
  return ForRowType(args.row_type, [&]<typename Row>(Row) {
    RescoreKernel<Row><<<grid, kThreads, 0, stream>>>(args);
  });
}

cudaError_t GatherDoubtRows(const RescoreArgs& args, int32_t num_doubts, float* values,
                            cudaStream_t stream) {
  if (num_doubts == 0) return cudaSuccess;
  return ForRowType(args.row_type, [&]<typename Row>(Row) {
    GatherKernel<Row><<<num_doubts, kThreads, 0, stream>>>(args, values);
  });
}

cudaError_t ScatterKeys(const RescoreArgs& args, int32_t num_doubts, const PairKey* resolved,
                        cudaStream_t stream) {
  if (num_doubts == 0) return cudaSuccess;
  ScatterKernel<<<(num_doubts + kThreads - 1) / kThreads, kThreads, 0, stream>>>(args, num_doubts,
                                                                                 resolved);
  return cudaGetLastError();
}

}  // namespace tiny_knn
