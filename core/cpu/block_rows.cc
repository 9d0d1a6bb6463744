#include "core/cpu/block_rows.h"

#include <algorithm>
#include <new>

#include "core/matrix/dtype.h"

namespace tiny_knn {
namespace {

constexpr int64_t kPieceBytes = int64_t{256} << 10;

}  // namespace

MatrixView BlockRows::Start(RowSource& docs, const RowSelection& rows) {
  docs_ = &docs;
  rows_ = rows;
  row_bytes_ = docs.dim() * ItemSize(docs.dtype());
  const int64_t bytes = rows.count * row_bytes_;
  if (bytes > memory_.bytes() && !memory_.Allocate(bytes)) throw std::bad_alloc();
  return {memory_.data(), docs.dtype(), rows.count, docs.dim(), row_bytes_};
}

absl::Status BlockRows::Fetch(IndexRange part) const {
  return docs_->Fetch({rows_.begin + part.begin * rows_.step, part.size(), rows_.step},
                      memory_.data() + part.begin * row_bytes_);
}

int64_t BlockRows::piece_rows() const { return std::max<int64_t>(1, kPieceBytes / row_bytes_); }

}  // namespace tiny_knn
