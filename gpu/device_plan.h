// The plan of a batch on a device: how many queries and docs at a time, and the device memory that
// this takes. Plain data, made before anything is allocated.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "core/matrix/dtype.h"
#include "core/search/search.h"
#include "gpu/cublas_gemm.h"
#include "gpu/device_types.h"

namespace tiny_knn {

// For tests, so that small problems have many batches, chunks, tiles and full lists. 0: as planned.
struct DeviceTuning {
  int64_t query_batch = 0;
  int64_t doc_chunk = 0;
  int64_t slice_docs = 0;
  int64_t query_tile = 0;
  int64_t doc_tile = 0;
  int64_t capacity = 0;            // of a query's candidates
  int64_t group = 0;               // queries that are rescored at a time
  int64_t doubts = 0;              // pairs in doubt that go to the host at a time
  bool no_tf32 = false;            // float32 rows are multiplied as they are
  int64_t claimed_free_bytes = 0;  // as if so much device memory were free; 0: what is
  bool tf32_always = false;        // and else rounded to TF32, however few queries there are
};

// What a device can do.
struct DeviceTraits {
  int compute_capability = 0;  // 80 for 8.0
  int64_t l2_bytes = 0;
};

// How rows of a compute dtype stand on the device and are multiplied.
struct RowFormat {
  RowType row_type = RowType::kFloat32;
  GemmKind gemm = GemmKind::kFloat32;
  // Whether what is multiplied is a rounded copy of the rows.
  bool has_rounded_copy() const { return gemm == GemmKind::kTf32; }
  int64_t row_item_bytes() const;
  // Elements of a row of `dim`, with the zeros that fill it up to 16 bytes.
  int64_t Stride(int64_t dim) const;
  int64_t BytesPerRow(int64_t dim) const;  // rounded copy included
  // Of the rows behind the last doc that the product may read.
  int64_t BytesBehindDocs(int64_t dim) const { return RowsReadBehind(gemm) * BytesPerRow(dim); }
  bool operator==(const RowFormat&) const = default;
};

// `num_queries`: how many share the work on the docs; more than any count where docs are kept.
// REQUIRES: compute_dtype is not float64.
RowFormat ChooseRowFormat(DType compute_dtype, int64_t dim, int64_t num_queries,
                          const DeviceTraits& traits, const DeviceTuning& tuning);

struct DeviceShape {
  int64_t num_queries = 0;
  int64_t num_docs = 0;
  int64_t dim = 0;
  int64_t k = 0;
  int64_t doc_item_bytes = 4;  // in the file
  RowFormat format;
  bool docs_are_resident = false;  // they are on the device already, and in no budget
};

struct DevicePlan {
  int64_t stride = 0;       // elements of a row on the device
  int64_t query_batch = 0;  // queries per pass over the docs
  int64_t doc_chunk = 0;    // docs on the device at one time; survivors are rescored at its end
  int64_t slice_docs = 0;   // docs that are copied and screened at a time
  int64_t query_tile = 0;   // a score tile is [query_tile, doc_tile], sized for the device's cache
  int64_t doc_tile = 0;     // a multiple of 4
  int64_t capacity = 0;     // candidates that a query holds
  int64_t group = 0;        // queries that are rescored or sorted at a time
  int64_t doubts = 0;       // pairs in doubt that go to the host at a time
  int64_t fixed_bytes = 0;  // of device memory, whatever query_batch and doc_chunk are
  int64_t bytes = 0;        // all told
};

// The plan for `budget_bytes` of device memory. ResourceExhausted if one query and one doc take
// more. Pure.
absl::StatusOr<DevicePlan> PlanOnDevice(const DeviceShape& shape, const DeviceTraits& traits,
                                        int64_t budget_bytes, const DeviceTuning& tuning);

// Bytes of device memory of a doc of that format, bounds included.
int64_t DeviceBytesPerDoc(const RowFormat& format, int64_t dim);

}  // namespace tiny_knn
