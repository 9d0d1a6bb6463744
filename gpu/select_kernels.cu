#include <bit>
#include <cstdint>

#include "core/search/ranking.h"
#include "core/search/screen_rules.h"
#include "gpu/block_primitives.cuh"
#include "gpu/select_kernels.h"

namespace tiny_knn {
namespace {

// Whether a candidate's upper bound is below the threshold: its lower bound plus the width of the
// interval. Infinite offsets make a NaN, which is not.
__device__ bool IsBelow(float lower, int doc, const QueryScreen& query, float threshold,
                        const SettleArgs& args) {
  const DocScreen screen = args.screens[doc];
  const double error =
      static_cast<double>(query.error_factor) * static_cast<double>(screen.norm) +
      static_cast<double>(query.residual_factor) * static_cast<double>(screen.residual);
  const double upper =
      static_cast<double>(lower) +
      (static_cast<double>(screen.upper) - static_cast<double>(args.tails[doc].lower)) + 2 * error;
  return upper < static_cast<double>(threshold);
}

// Moves the candidates that are not below the threshold to the front, in order. Returns how many.
__device__ int DropBelow(int query, int count, float threshold, const SettleArgs& args,
                         BlockCounter::TempStorage& scan) {
  const QueryScreen screen = args.queries[query];
  const int64_t list = static_cast<int64_t>(query) * args.lists.capacity;
  float* const lowers = args.lists.lower + list;
  int32_t* const docs = args.lists.doc + list;
  int kept = 0;
  for (int first = 0; first < count; first += kBlockThreads) {
    const int i = first + static_cast<int>(threadIdx.x);
    float lower = 0;
    int32_t doc = 0;
    bool keeps = false;
    if (i < count) {
      lower = lowers[i];
      doc = docs[i];
      keeps = !IsBelow(lower, doc, screen, threshold, args);
    }
    // Its barriers stand between everybody's reads and the writes, which reach no further than
    // those.
    int total = 0;
    const int before = ExclusiveSum(keeps ? 1 : 0, total, scan);
    if (keeps) {
      lowers[kept + before] = lower;
      docs[kept + before] = doc;
    }
    kept += total;
    __syncthreads();
  }
  return kept;
}

__global__ void __launch_bounds__(kBlockThreads) SettleKernel(SettleArgs args) {
  __shared__ SelectStorage select;
  const int query = args.first_query + static_cast<int>(blockIdx.x);
  const CandidateLists& lists = args.lists;
  int done = lists.done[query];
  int count = lists.count[query];
  const bool was_filtered = done >= args.first_doc && done < args.end_doc;
  // A query that waits, or was through, takes no part in this tile.
  if (!was_filtered && args.first_doc < args.end_doc) return;
  if (was_filtered) {
    if (count > lists.capacity) {
      count = lists.settled[query];
    } else {
      done = args.end_doc;
    }
  }
  float threshold = lists.threshold[query];
  if (count > args.thin_above) {
    if (count >= args.k) {
      const float* const lowers = lists.lower + static_cast<int64_t>(query) * lists.capacity;
      // Lower bounds are no scores: -0 occurs, which the key of a score does not know, so it is
      // made +0.
      const auto key = [lowers](int i) { return KeyOfScore(lowers[i] + 0.0F); };
      const uint32_t kth = SelectLargest<uint32_t>(count, static_cast<int>(args.k), key, select);
      const QueryUnits units = args.units[query];
      const float certain = CertainScore<float>(units, ScoreOfKey<float>(kth));
      threshold = fmaxf(threshold, ThresholdFor(units, certain));
    }
    count = DropBelow(query, count, threshold, args, select.scan);
  }
  __syncthreads();  // everybody has read what is written now
  if (threadIdx.x == 0) {
    lists.done[query] = done;
    lists.count[query] = count;
    lists.settled[query] = count;
    lists.threshold[query] = threshold;
  }
}

__global__ void __launch_bounds__(kBlockThreads)
    FindStuckKernel(CandidateLists lists, int32_t num_queries, int32_t end_doc, int32_t* stuck,
                    int32_t* num_stuck) {
  const int query = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (query >= num_queries || lists.done[query] >= end_doc) return;
  stuck[atomicAdd(num_stuck, 1)] = query;
}

}  // namespace

cudaError_t SettleLists(const SettleArgs& args, cudaStream_t stream) {
  if (args.num_queries == 0) return cudaSuccess;
  SettleKernel<<<args.num_queries, kBlockThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

cudaError_t FindStuck(const CandidateLists& lists, int32_t num_queries, int32_t end_doc,
                      int32_t* stuck, int32_t* num_stuck, cudaStream_t stream) {
  const cudaError_t cleared = cudaMemsetAsync(num_stuck, 0, sizeof(*num_stuck), stream);
  if (cleared != cudaSuccess || num_queries == 0) return cleared;
  const int blocks = (num_queries + kBlockThreads - 1) / kBlockThreads;
  FindStuckKernel<<<blocks, kBlockThreads, 0, stream>>>(lists, num_queries, end_doc, stuck,
                                                        num_stuck);
  return cudaGetLastError();
}

}  // namespace tiny_knn
