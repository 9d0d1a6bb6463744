// Docs on the device as the screen prepared them: rows, what is multiplied of them, bounds. A chunk
// of a search, or all docs, kept from one search to the next.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>

#include "absl/status/status.h"
#include "core/io/row_source.h"
#include "core/search/engine.h"
#include "core/search/search.h"
#include "gpu/cuda_raii.h"
#include "gpu/device_plan.h"
#include "gpu/device_types.h"

namespace tiny_knn {

// Device memory of up to `capacity` docs. Thread-compatible.
class DocChunk {
 public:
  // ResourceExhausted if there is not so much; it is empty then.
  absl::Status Allocate(const RowFormat& format, int64_t dim, int64_t capacity);
  void Release();

  // Zeros in the rows from `doc` on that a product of the docs before it may read.
  cudaError_t ClearBehind(int64_t doc, cudaStream_t stream) const;

  int64_t capacity() const { return screens_.count(); }
  const RowFormat& format() const { return format_; }
  int64_t stride() const { return stride_; }

  // Doc `doc` and those after it.
  void* Rows(int64_t doc) const { return rows_.data() + doc * stride_ * format_.row_item_bytes(); }
  // Null without a rounded copy.
  float* RoundedRows(int64_t doc) const {
    return format_.has_rounded_copy() ? rounded_.data() + doc * stride_ : nullptr;
  }
  const void* GemmRows(int64_t doc) const {
    return format_.has_rounded_copy() ? RoundedRows(doc) : Rows(doc);
  }
  DocScreen* screens() const { return screens_.data(); }
  DocTail* tails() const { return tails_.data(); }

 private:
  RowFormat format_;
  int64_t stride_ = 0;
  DeviceBuffer<std::byte> rows_;  // [capacity, stride] of the row type, and what is read behind
  DeviceBuffer<float> rounded_;   // [capacity, stride]
  DeviceBuffer<DocScreen> screens_;
  DeviceBuffer<DocTail> tails_;
};

class CudaWarmDocs;

// The warm docs that share a device's memory. They outlive neither this nor each other's use:
// whoever makes them keeps it in a shared_ptr. Thread-compatible.
class WarmDocsOnDevice {
 public:
  void Add(CudaWarmDocs* docs) { all_.insert(docs); }
  void Remove(CudaWarmDocs* docs) { all_.erase(docs); }
  // Empties those that were used the longest time ago, never `keep` (may be null), until `needed`
  // bytes have been given back or there are no more. Returns how many were.
  int64_t Free(int64_t needed, const CudaWarmDocs* keep);
  // Device memory of all that are not empty.
  int64_t bytes() const;
  int64_t NextUse() { return ++uses_; }

 private:
  std::set<CudaWarmDocs*> all_;
  int64_t uses_ = 0;
};

// All docs of a file. empty --Allocate--> filling --FinishFilling--> prepared --MarkFilled-->
// filled; Clear empties.
class CudaWarmDocs final : public WarmDocs {
 public:
  CudaWarmDocs(const ProblemShape& shape, const RowFormat& format,
               std::shared_ptr<WarmDocsOnDevice> device);
  ~CudaWarmDocs() override;

  bool filled() const override { return state_ == State::kFilled; }
  int64_t bytes() const override { return 0; }
  int64_t device_bytes() const {
    return num_docs_ * DeviceBytesPerDoc(format_, dim_) + format_.BytesBehindDocs(dim_);
  }

  // OK if these are the docs of that source for that metric and compute dtype, as far as their
  // shape tells; else Internal, saying what differs.
  absl::Status CheckFits(const RowSource& docs, const SearchParams& params) const;

  // REQUIRES: empty.
  absl::Status Allocate();
  bool empty() const { return state_ == State::kEmpty; }
  bool filling() const { return state_ == State::kFilling; }
  bool prepared() const { return state_ == State::kPrepared || state_ == State::kFilled; }
  void FinishFilling(const PrepareTally& tally);
  // REQUIRES: prepared().
  void MarkFilled() { state_ = State::kFilled; }
  void Clear();

  const RowFormat& format() const { return format_; }
  DocChunk& chunk() { return chunk_; }
  const PrepareTally& tally() const { return tally_; }

  void Use() { last_use_ = device_->NextUse(); }
  int64_t last_use() const { return last_use_; }

 private:
  enum class State { kEmpty, kFilling, kPrepared, kFilled };

  const int64_t num_docs_;
  const int64_t dim_;
  const DType doc_dtype_;
  const DType compute_dtype_;
  const Metric metric_;
  const RowFormat format_;
  const std::shared_ptr<WarmDocsOnDevice> device_;
  State state_ = State::kEmpty;
  DocChunk chunk_;
  PrepareTally tally_;
  int64_t last_use_ = 0;
};

}  // namespace tiny_knn
