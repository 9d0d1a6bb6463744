// Rows of a file on their way to the screen: from the file's dtype to the compute dtype, one
// rounding per element as core/matrix/convert.h says, and the numbers that the screen's bound
// takes.
#pragma once

#include <cstdint>

#include "core/matrix/dtype.h"
#include "cuda_runtime_api.h"
#include "gpu/device_types.h"

namespace tiny_knn {

// Pointers are to device memory.
struct PrepareRowsArgs {
  const void* source = nullptr;  // [num_rows, dim] of `source_dtype`, packed
  DType source_dtype = DType::kFloat32;
  DType compute_dtype = DType::kFloat32;  // not float64
  int64_t num_rows = 0;
  int32_t dim = 0;
  int32_t stride = 0;  // elements between rows of what is written; the rest of a row is zeros
  bool is_cosine = false;
  bool is_l2 = false;
  RowType row_type = RowType::kFloat32;
  void* rows = nullptr;  // [num_rows, stride] of `row_type`
  float* rounded_rows =
      nullptr;  // [num_rows, stride] in TF32; null: the rows themselves are multiplied
  DocScreen* screens = nullptr;   // [num_rows]; null with `tails`: nobody asks
  DocTail* tails = nullptr;       // [num_rows]
  RowSums* sums = nullptr;        // [num_rows]; null: nobody asks
  PrepareTally* tally = nullptr;  // is added to; null: nobody asks
};

// REQUIRES: CheckConversion(source_dtype, compute_dtype).ok(). An integer that the compute dtype
// cannot hold is counted, and what is written of its row means nothing.
cudaError_t PrepareRows(const PrepareRowsArgs& args, cudaStream_t stream);

}  // namespace tiny_knn
