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
  if (bytes > large_.bytes() && bytes >= HugePages::kPageBytes) {
    AlignedVector<std::byte>().swap(small_);
    if (!large_.Allocate(bytes)) throw std::bad_alloc();
  } else if (large_.bytes() == 0 && bytes > static_cast<int64_t>(small_.size())) {
    small_ = AlignedVector<std::byte>(static_cast<size_t>(bytes));
  }
  data_ = large_.bytes() > 0 ? large_.data() : small_.data();
  return {data_, docs.dtype(), rows.count, docs.dim(), row_bytes_};
}

absl::Status BlockRows::Fetch(IndexRange part) const {
  return docs_->Fetch({rows_.begin + part.begin * rows_.step, part.size(), rows_.step},
                      data_ + part.begin * row_bytes_);
}

absl::StatusOr<MatrixView> BlockRows::FetchTo(int64_t place, IndexRange part) const {
  std::byte* const out = data_ + place * row_bytes_;
  const absl::Status fetched =
      docs_->Fetch({rows_.begin + part.begin * rows_.step, part.size(), rows_.step}, out);
  if (!fetched.ok()) return fetched;
  return MatrixView{out, docs_->dtype(), part.size(), docs_->dim(), row_bytes_};
}

int64_t BlockRows::piece_rows() const { return std::max<int64_t>(1, kPieceBytes / row_bytes_); }

}  // namespace tiny_knn
