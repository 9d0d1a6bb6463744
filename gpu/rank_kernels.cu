#include <cstdint>

#include "core/search/ranking.h"
#include "core/search/screen_rules.h"
#include "gpu/block_primitives.cuh"
#include "gpu/rank_kernels.h"

namespace tiny_knn {
namespace {

// Appends those of keys [0, count) that are at least `least` to `to`, whose first `kept` entries
// stay. `to` may be `keys` with kept = 0. Returns how many there are then.
__device__ int AppendFrom(const PairKey* keys, int count, PairKey least, PairKey* to, int kept,
                          BlockCounter::TempStorage& scan) {
  for (int first = 0; first < count; first += kBlockThreads) {
    const int i = first + static_cast<int>(threadIdx.x);
    PairKey key = 0;
    bool keeps = false;
    if (i < count) {
      key = keys[i];
      keeps = key >= least;
    }
    // Its barriers stand between everybody's reads and the writes, which reach no further than
    // those.
    int total = 0;
    const int before = ExclusiveSum(keeps ? 1 : 0, total, scan);
    if (keeps) to[kept + before] = key;
    kept += total;
    __syncthreads();
  }
  return kept;
}

// The second bound is for sm_120, where ptxas would spill without it.
__global__ void __launch_bounds__(kBlockThreads, 4) MergeKernel(MergeArgs args) {
  __shared__ SelectStorage select;
  const int slot = static_cast<int>(blockIdx.x);
  const int query = args.selected != nullptr ? args.selected[slot] : args.first_query + slot;
  const CandidateLists& lists = args.lists;
  const PairKey* const found = args.keys + static_cast<int64_t>(slot) * lists.capacity;
  const int num_found = lists.count[query];
  if (num_found == 0) return;  // the whole block
  PairKey* const best = args.best.keys + static_cast<int64_t>(query) * args.best.capacity;
  const int capacity = args.best.capacity;
  int count = args.best.count[query];
  PairKey least = 0;
  if (count + num_found > capacity) {
    const auto both = [&](int i) { return i < count ? best[i] : found[i - count]; };
    least = SelectLargest<PairKey>(count + num_found, capacity, both, select);
    count = AppendFrom(best, count, least, best, 0, select.scan);
  }
  count = AppendFrom(found, num_found, least, best, count, select.scan);
  float threshold = lists.threshold[query];
  const int k = capacity - 1;
  if (count >= k) {
    const PairKey kth = SelectLargest<PairKey>(
        count, k, [&](int i) { return best[i]; }, select);
    const float score = ScoreOfKey<float>(ScoreKeyOf(kth));
    threshold = fmaxf(threshold, ThresholdFor(args.units[query], score));
  }
  __syncthreads();  // everybody has read what is written now
  if (threadIdx.x == 0) {
    args.best.count[query] = count;
    lists.threshold[query] = threshold;
    lists.count[query] = 0;
    lists.settled[query] = 0;
    using Count = unsigned long long;
    static_assert(sizeof(Count) == sizeof(*args.rescored));
    atomicAdd(reinterpret_cast<Count*>(args.rescored), static_cast<Count>(num_found));
  }
}

// Block x of a query sorts its ranks [x * kSortKeys, (x + 1) * kSortKeys).
__global__ void __launch_bounds__(kBlockThreads)
    SortKernel(BestPairs best, int32_t first_query, PairKey* sorted) {
  __shared__ union {
    SelectStorage select;
    BlockKeySort::TempStorage sort;
  } shared;
  __shared__ PairKey run[kSortKeys];
  __shared__ int taken;
  const int query = first_query + static_cast<int>(blockIdx.y);
  const PairKey* const keys = best.keys + static_cast<int64_t>(query) * best.capacity;
  const int count = best.count[query];
  const int first_rank = static_cast<int>(blockIdx.x) * kSortKeys;
  if (first_rank >= count) return;  // the whole block
  const int end_rank = min(count - first_rank, kSortKeys) + first_rank;
  // Of distinct keys, those of the ranks [first_rank, end_rank) lie in [last, above).
  const auto load = [keys](int i) { return keys[i]; };
  PairKey above = kUnscored;
  PairKey last = 0;
  if (first_rank > 0) above = SelectLargest<PairKey>(count, first_rank, load, shared.select);
  if (end_rank < count) last = SelectLargest<PairKey>(count, end_rank, load, shared.select);
  if (threadIdx.x == 0) taken = 0;
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kBlockThreads) {
    const PairKey key = keys[i];
    if (key >= last && key < above) run[atomicAdd(&taken, 1)] = key;
  }
  __syncthreads();
  const int num_taken = end_rank - first_rank;
  PairKey* const out = sorted + static_cast<int64_t>(blockIdx.y) * best.capacity + first_rank;
  if (num_taken <= kBlockThreads) {
    // Of few distinct keys, each thread counts those before its own: sooner done than 16 passes.
    const int own = static_cast<int>(threadIdx.x);
    if (own >= num_taken) return;
    const PairKey key = run[own];
    int rank = 0;
    for (int i = 0; i < num_taken; ++i) rank += run[i] > key ? 1 : 0;
    out[rank] = key;
    return;
  }
  PairKey mine[kSortItems];
  const int first_item = static_cast<int>(threadIdx.x) * kSortItems;
  for (int v = 0; v < kSortItems; ++v) {
    mine[v] = first_item + v < num_taken ? run[first_item + v] : 0;
  }
  SortDescending(mine, shared.sort);
  for (int v = 0; v < kSortItems; ++v) {
    if (first_item + v < num_taken) out[first_item + v] = mine[v];
  }
}

}  // namespace

cudaError_t MergeScored(const MergeArgs& args, cudaStream_t stream) {
  if (args.num_slots == 0) return cudaSuccess;
  MergeKernel<<<args.num_slots, kBlockThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

cudaError_t SortBest(const BestPairs& best, int32_t first_query, int32_t num_queries,
                     PairKey* sorted, cudaStream_t stream) {
  if (num_queries == 0) return cudaSuccess;
  const dim3 grid((best.capacity + kSortKeys - 1) / kSortKeys, num_queries);
  SortKernel<<<grid, kBlockThreads, 0, stream>>>(best, first_query, sorted);
  return cudaGetLastError();
}

}  // namespace tiny_knn
