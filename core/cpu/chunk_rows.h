// Docs of a chunk that are at hand, as scoring wants them: any row as working values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/matrix/dtype.h"
#include "core/matrix/matrix_view.h"

namespace tiny_knn {

template <typename T>
class ChunkRows {
 public:
  // `rows` are of the file's dtype and outlive this: docs `first_doc`, ... of the chunk.
  ChunkRows(const MatrixView& rows, DType compute_dtype, int64_t first_doc = 0);
  // The same, of docs 0, ... in several views, at least one.
  ChunkRows(std::vector<MatrixView> pieces, DType compute_dtype);

  // Whether rows as they are stored hold the working values, in a dtype that float32 holds exactly.
  bool are_widened_exactly() const { return widened_exactly_; }
  DType stored_dtype() const { return rows_.dtype; }
  const void* StoredRow(int64_t doc) const {
    const int64_t row = doc - first_doc_;
    return piece_ends_.empty() ? rows_.Row(row) : RowOfPieces(row);
  }

  // A row as it is stored, StoredRow's or a copy, as working values: where it lies, or converted
  // into `scratch` [dim]. Conversion was checked when the screen prepared the docs. Any thread.
  const T* WorkingRow(const void* stored, std::vector<T>& scratch) const;

  // Starts to fetch the row into cache. Any thread.
  void Prefetch(int64_t doc) const;

 private:
  const void* RowOfPieces(int64_t row) const;

  MatrixView rows_;  // the only piece, or the first one
  // Empty where there is only one; else the rows of piece p lie before piece_ends_[p].
  std::vector<MatrixView> pieces_;
  std::vector<int64_t> piece_ends_;
  DType compute_dtype_;
  int64_t first_doc_;
  bool in_place_;
  bool widened_exactly_;
};

}  // namespace tiny_knn
