// Thresholds: what a query's candidates prove of its top k, and the candidates that this drops.
#pragma once

#include <cstdint>

#include "cuda_runtime_api.h"
#include "gpu/device_types.h"

namespace tiny_knn {

// Pointers are to device memory.
struct SettleArgs {
  const DocScreen* screens = nullptr;    // [docs of the chunk]
  const DocTail* tails = nullptr;        // [docs of the chunk]
  const QueryScreen* queries = nullptr;  // [queries of the batch]
  const QueryUnits* units = nullptr;     // [queries of the batch]
  CandidateLists lists;
  int32_t first_query = 0;  // of the batch
  int32_t num_queries = 0;
  // The docs of the chunk that were filtered before this call; empty at the end of a chunk.
  int32_t first_doc = 0;
  int32_t end_doc = 0;
  int64_t k = 0;
  // Lists longer than this are thinned: the threshold is raised to what the k best lower bounds
  // prove, and what is below it is dropped.
  int32_t thin_above = 0;
};

// After each FilterTile: takes what was appended for done, or takes it back where it did not fit,
// and thins.
cudaError_t SettleLists(const SettleArgs& args, cudaStream_t stream);

// Writes the queries of the batch whose `done` is below `end_doc` to `stuck` [num_queries], in no
// particular order, and how many there are to `num_stuck`.
cudaError_t FindStuck(const CandidateLists& lists, int32_t num_queries, int32_t end_doc,
                      int32_t* stuck, int32_t* num_stuck, cudaStream_t stream);

}  // namespace tiny_knn
