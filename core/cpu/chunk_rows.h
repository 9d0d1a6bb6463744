// The resident docs of a chunk as scoring wants them: any row as working values.
#pragma once

#include <cstdint>
#include <vector>

#include "core/matrix/dtype.h"
#include "core/matrix/matrix_view.h"

namespace tiny_knn {

template <typename T>
class ChunkRows {
 public:
  // `chunk` holds rows of the file's dtype and outlives this.
  ChunkRows(const MatrixView& chunk, DType compute_dtype);

  // Row `doc` of the chunk: where it lies, or converted into `scratch` [dim]. Conversion was
  // checked when the screen prepared the docs. Any thread.
  const T* Row(int64_t doc, std::vector<T>& scratch) const;

  // Starts to fetch the row into cache. Any thread.
  void Prefetch(int64_t doc) const;

 private:
  MatrixView chunk_;
  DType compute_dtype_;
  bool in_place_;
};

}  // namespace tiny_knn
