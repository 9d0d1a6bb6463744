// Docs as the CPU engine's screen prepared them, kept from one search to the next: the rows that it
// multiplies, the bounds of each, and what preparing them noticed.
//
//   empty --Allocate--> filling --FinishFilling--> prepared --MarkFilled--> filled
//     ^------------------- Clear: the search failed ----'
//
// Batches after the first one of the search that fills use them as soon as they are prepared; other
// searches when they are filled.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "core/cpu/huge_pages.h"
#include "core/cpu/screen.h"
#include "core/io/row_source.h"
#include "core/matrix/matrix_view.h"
#include "core/search/engine.h"
#include "core/search/planner.h"
#include "core/search/search.h"

namespace tiny_knn {

// Thread-compatible; threads may fill rows and bounds of different docs at once.
class CpuWarmDocs final : public WarmDocs {
 public:
  // Null where docs of that shape cannot be kept: none at all, more than one chunk of `plan`, more
  // bytes than can be counted, or rows that would have to be read again for rescoring from a source
  // that cannot be mapped.
  static std::unique_ptr<CpuWarmDocs> Make(const ProblemShape& shape, const SearchPlan& plan);

  bool filled() const override { return state_ == State::kFilled; }
  int64_t bytes() const override;

  // OK if these are the docs of that source for that metric and compute dtype, as far as their
  // shape tells; else Internal, saying what differs.
  absl::Status CheckFits(const RowSource& docs, const SearchParams& params) const;

  // Bytes that are allocated now.
  int64_t allocated_bytes() const;
  // Takes the memory. False where there is none: then it stays empty. REQUIRES: empty.
  bool Allocate();
  // `counts`: what preparing all docs noticed.
  void FinishFilling(const PrepareCounts& counts);
  // REQUIRES: prepared().
  void MarkFilled() { state_ = State::kFilled; }
  // Empty again, without memory.
  void Clear();

  // Whether rows and bounds may be used: all docs are in.
  bool prepared() const { return state_ == State::kPrepared || state_ == State::kFilled; }
  // Whether there is memory to write rows and bounds to.
  bool filling() const { return state_ == State::kFilling; }
  const PrepareCounts& counts() const { return counts_; }

  // Which screen's they are.
  ScreenKind screen() const { return screen_; }
  // What is kept of the docs from `doc` on, a multiple of kTileDocs: rows [num_docs, dim] in
  // float32 as the screen multiplies them, unit rows for cosine; or codes, scales and centre.
  // REQUIRES: not empty. So do the next two.
  KeptDocs KeptFrom(int64_t doc);
  // [num_docs]
  DocBoundArrays& bounds() { return *bounds_; }
  MatrixView view() const;

  // Whether the kept rows are also the values that scores are computed of.
  bool are_working_rows() const { return are_working_rows_; }

 private:
  enum class State { kEmpty, kFilling, kPrepared, kFilled };

  CpuWarmDocs(const ProblemShape& shape, ScreenKind screen);
  int64_t item_bytes() const;    // of all rows or codes
  int64_t row_bytes() const;     // of all rows, in whole pages
  int64_t bounds_bytes() const;  // of all bounds

  const int64_t num_docs_;
  const int64_t dim_;
  const DType doc_dtype_;
  const DType compute_dtype_;
  const Metric metric_;
  const ScreenKind screen_;
  const bool are_working_rows_;
  State state_ = State::kEmpty;
  HugePages rows_;  // or codes
  std::vector<float> scales_;
  std::vector<float> centre_;
  std::optional<DocBoundArrays> bounds_;
  PrepareCounts counts_;
};

}  // namespace tiny_knn
