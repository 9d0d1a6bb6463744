// Step 1 of rescoring on the device: float64 sums of candidates with the bound of
// core/search/certain_rounding.h. Pairs that it cannot round go to the host.
#pragma once

#include <cstdint>

#include "cuda_runtime_api.h"
#include "gpu/device_types.h"

namespace tiny_knn {

// Pointers are to device memory.
struct RescoreArgs {
  RowType row_type = RowType::kFloat32;
  const void* query_rows = nullptr;     // [queries of the batch, stride]
  const void* doc_rows = nullptr;       // [docs of the chunk, stride]
  const DocTail* tails = nullptr;       // [docs of the chunk]
  const QueryNorms* queries = nullptr;  // [queries of the batch]
  CandidateLists lists;
  int32_t dim = 0;
  int32_t stride = 0;  // elements; the rest of a row is zeros
  bool is_cosine = false;
  bool is_l2 = false;
  bool has_exact_sums = false;  // sums of the rows' products are integers that float64 holds
  // Which queries: slot s is query selected[s], or first_query + s.
  const int32_t* selected = nullptr;
  int32_t first_query = 0;
  int32_t num_slots = 0;
  uint32_t chunk_begin = 0;    // index of the chunk's first doc in the file
  PairKey* keys = nullptr;     // [num_slots, lists.capacity]; of a pair in doubt: kUnscored
  bool only_unscored = false;  // leaves alone what has a key
  Doubt* doubts = nullptr;     // [doubt_capacity]
  int32_t doubt_capacity = 0;
  int32_t* num_doubts =
      nullptr;  // is added to; more than doubt_capacity: the others are not listed
};

// Keys of all candidates of the slots' queries.
cudaError_t RescoreCandidates(const RescoreArgs& args, cudaStream_t stream);

// values[i * dim ...] = doc doubts[i].doc as float32. REQUIRES: num_doubts at most
// args.doubt_capacity.
cudaError_t GatherDoubtRows(const RescoreArgs& args, int32_t num_doubts, float* values,
                            cudaStream_t stream);

// keys of doubts[i] = resolved[i].
cudaError_t ScatterKeys(const RescoreArgs& args, int32_t num_doubts, const PairKey* resolved,
                        cudaStream_t stream);

}  // namespace tiny_knn
