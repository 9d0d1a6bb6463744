// The filter: which docs of a score tile may still reach their query's top k.
#pragma once

#include <cstdint>

#include "cuda_runtime_api.h"
#include "gpu/device_types.h"

namespace tiny_knn {

// A tile of approximate scores, of queries [first_query, first_query + num_queries) of the batch by
// docs [first_doc, first_doc + num_docs) of the chunk. Pointers are to device memory.
struct ScoreTile {
  const void* scores =
      nullptr;  // [num_queries, stride] dot products of GEMM rows, aligned to 16 bytes
  bool are_integers = false;  // int32, else float32
  int64_t stride = 0;         // a multiple of 4
  int32_t first_query = 0;
  int32_t num_queries = 0;
  int32_t first_doc = 0;
  int32_t num_docs = 0;
};

// No doc is excluded of a query by that.
inline constexpr int64_t kNoSelf = INT64_MIN;

struct FilterArgs {
  ScoreTile tile;
  const DocScreen* screens = nullptr;    // [docs of the chunk]
  const DocTail* tails = nullptr;        // [docs of the chunk]
  const QueryScreen* queries = nullptr;  // [queries of the batch]
  CandidateLists lists;
  // Query i of the batch is doc first_self + i of the chunk, which is not to be found; kNoSelf: may
  // be.
  int64_t first_self = kNoSelf;
};

// Appends what survives of the tile to the lists, in no particular order. A query takes part whose
// `done` is inside the tile, with its docs from there on. Its count grows by what survived, whether
// or not there was room; entries beyond capacity are not written.
cudaError_t FilterTile(const FilterArgs& args, cudaStream_t stream);

}  // namespace tiny_knn
