// The top k on the device: scored candidates join it, and at the end it is put in order. No limit
// on k.
#pragma once

#include <cstdint>

#include "cuda_runtime_api.h"
#include "gpu/device_types.h"

namespace tiny_knn {

// The best pairs scored so far of a batch's queries, in no order: at most k + 1, the last one only
// to tell whether rank k is tied. Pointers are to device memory.
struct BestPairs {
  PairKey* keys = nullptr;   // [num_queries, capacity]
  int32_t* count = nullptr;  // [num_queries]
  int32_t capacity = 0;      // k + 1
};

struct MergeArgs {
  const QueryUnits* units = nullptr;  // [queries of the batch]
  CandidateLists lists;
  BestPairs best;
  const PairKey* keys = nullptr;  // [num_slots, lists.capacity], all scored
  // Which queries: slot s is query selected[s], or first_query + s.
  const int32_t* selected = nullptr;
  int32_t first_query = 0;
  int32_t num_slots = 0;
  uint64_t* rescored = nullptr;  // one counter; the number of merged pairs is added
};

// Merges the keys of all candidates into the best pairs, raises thresholds by the k-th best score,
// empties the lists.
cudaError_t MergeScored(const MergeArgs& args, cudaStream_t stream);

// sorted[i, r] = the best pair of rank r of query first_query + i, r < its count; rows lie
// best.capacity apart.
cudaError_t SortBest(const BestPairs& best, int32_t first_query, int32_t num_queries,
                     PairKey* sorted, cudaStream_t stream);

}  // namespace tiny_knn
