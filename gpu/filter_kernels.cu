#include <cstdint>
#include <limits>

#include "gpu/block_primitives.cuh"
#include "gpu/filter_kernels.h"

namespace tiny_knn {
namespace {

// A thread holds the numbers of four docs in registers while it goes through the queries of its
// block.
constexpr int kDocsPerThread = 4;
constexpr int kDocsPerBlock = kBlockThreads * kDocsPerThread;
constexpr int kQueriesPerBlock = 8;

struct alignas(16) FourFloats {
  float values[kDocsPerThread];
};
struct alignas(16) FourIntegers {
  int32_t values[kDocsPerThread];
};

template <typename Four>
__device__ void LoadScores(const ScoreTile& tile, int64_t i, int count,
                           float (&scores)[kDocsPerThread]) {
  using Score = std::remove_all_extents_t<decltype(Four::values)>;
  const Score* from = static_cast<const Score*>(tile.scores) + i;
  Four four{};
  if (count == kDocsPerThread) {
    four = *reinterpret_cast<const Four*>(from);
  } else {
    for (int v = 0; v < kDocsPerThread; ++v) {
      if (v < count) four.values[v] = from[v];
    }
  }
  for (int v = 0; v < kDocsPerThread; ++v) scores[v] = static_cast<float>(four.values[v]);
}

template <typename Four>
__global__ void __launch_bounds__(kBlockThreads) FilterKernel(FilterArgs args) {
  __shared__ BlockCounter::TempStorage scan;
  __shared__ int first_free;
  const ScoreTile& tile = args.tile;
  const CandidateLists& lists = args.lists;
  const int first = static_cast<int>(blockIdx.x) * kDocsPerBlock +
                    static_cast<int>(threadIdx.x) * kDocsPerThread;  // of the tile
  const int docs = max(0, min(kDocsPerThread, tile.num_docs - first));
  DocScreen doc[kDocsPerThread];
  for (int v = 0; v < kDocsPerThread; ++v) {
    if (v < docs) doc[v] = args.screens[tile.first_doc + first + v];
  }
  const int first_row = static_cast<int>(blockIdx.y) * kQueriesPerBlock;
  const int last_row = min(first_row + kQueriesPerBlock, tile.num_queries);
  for (int row = first_row; row < last_row; ++row) {
    const int query = tile.first_query + row;
    const int done = lists.done[query];
    if (done < tile.first_doc || done >= tile.first_doc + tile.num_docs) continue;
    const QueryScreen screen = args.queries[query];
    const float threshold = lists.threshold[query];
    const int64_t self = args.first_self == kNoSelf ? -1 : args.first_self + query;
    float scores[kDocsPerThread];
    LoadScores<Four>(tile, row * tile.stride + first, docs, scores);
    bool survives[kDocsPerThread];
    int count = 0;
    for (int v = 0; v < kDocsPerThread; ++v) {
      const int chunk_doc = tile.first_doc + first + v;
      scores[v] = scores[v] * (screen.scale * doc[v].scale);
      const float error =
          screen.error_factor * doc[v].norm + screen.residual_factor * doc[v].residual;
      // Not "at least": a NaN on either side must survive.
      const bool below = scores[v] < (threshold - error) - doc[v].upper;
      survives[v] = v < docs && !below && chunk_doc >= done && chunk_doc != self;
      count += survives[v] ? 1 : 0;
    }
    // Nearly always none does.
    if (__syncthreads_or(count) == 0) continue;
    int total = 0;
    const int before = ExclusiveSum(count, total, scan);
    if (threadIdx.x == 0) first_free = atomicAdd(&lists.count[query], total);
    __syncthreads();
    int at = first_free + before;
    for (int v = 0; v < kDocsPerThread; ++v) {
      if (!survives[v]) continue;
      if (at < lists.capacity) {
        const int chunk_doc = tile.first_doc + first + v;
        const float error =
            screen.error_factor * doc[v].norm + screen.residual_factor * doc[v].residual;
        const float lower = scores[v] + (args.tails[chunk_doc].lower - error);
        const int64_t entry = static_cast<int64_t>(query) * lists.capacity + at;
        lists.lower[entry] = lower == lower ? lower : -std::numeric_limits<float>::infinity();
        lists.doc[entry] = chunk_doc;
      }
      ++at;
    }
    __syncthreads();  // before the next query writes first_free
  }
}

}  // namespace

cudaError_t FilterTile(const FilterArgs& args, cudaStream_t stream) {
  if (args.tile.num_docs == 0 || args.tile.num_queries == 0) return cudaSuccess;
  const dim3 grid((args.tile.num_docs + kDocsPerBlock - 1) / kDocsPerBlock,
                  (args.tile.num_queries + kQueriesPerBlock - 1) / kQueriesPerBlock);
  if (args.tile.are_integers) {
    FilterKernel<FourIntegers><<<grid, kBlockThreads, 0, stream>>>(args);
  } else {
    FilterKernel<FourFloats><<<grid, kBlockThreads, 0, stream>>>(args);
  }
  return cudaGetLastError();
}

}  // namespace tiny_knn
