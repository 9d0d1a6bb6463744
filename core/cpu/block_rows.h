// Rows of the docs that are screened next, read into memory that stays in cache from one block to
// the next: for sources whose rows have to be fetched.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/cpu/huge_pages.h"
#include "core/cpu/index_range.h"
#include "core/io/row_source.h"
#include "core/matrix/aligned_vector.h"
#include "core/matrix/matrix_view.h"

namespace tiny_knn {

// Thread-compatible, but for Fetch.
class BlockRows {
 public:
  // Starts a block: rows `rows` of `docs`, which needs_fetch() and outlives the block. They will
  // lie in the view; it is valid until the next block. Throws std::bad_alloc.
  MatrixView Start(RowSource& docs, const RowSelection& rows);

  // Reads rows `part` of the block. Any thread, disjoint parts. Errors as RowSource::Fetch.
  absl::Status Fetch(IndexRange part) const;

  // The same to where row `place` of the block would lie: rows that nobody wants again do without
  // memory for all of the block. They lie in the view until others are read to their place.
  absl::StatusOr<MatrixView> FetchTo(int64_t place, IndexRange part) const;

  // So many rows are worth fetching at a time: they stay in a core's own cache until they are used,
  // and hide what the call costs.
  int64_t piece_rows() const;

 private:
  RowSource* docs_ = nullptr;
  RowSelection rows_;
  int64_t row_bytes_ = 0;
  std::byte* data_ = nullptr;       // in one of these:
  AlignedVector<std::byte> small_;  // less than a huge page, which takes a while to clear
  HugePages large_;
};

}  // namespace tiny_knn
