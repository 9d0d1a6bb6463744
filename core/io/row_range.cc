#include "core/io/row_range.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace tiny_knn {
namespace {

class RowRange final : public RowSource {
 public:
  RowRange(std::unique_ptr<RowSource> rows, int64_t begin, int64_t end)
      : RowSource(rows->name(), rows->dtype(), end - begin, rows->dim()),
        rows_(std::move(rows)),
        begin_(begin) {}

  absl::StatusOr<MatrixView> Rows(int64_t begin, int64_t end) override {
    return rows_->Rows(begin_ + begin, begin_ + end);
  }
  absl::StatusOr<std::vector<MatrixView>> StartRows(int64_t begin, int64_t end) override {
    return rows_->StartRows(begin_ + begin, begin_ + end);
  }
  int64_t most_rows_in_place() const override { return rows_->most_rows_in_place(); }
  bool needs_fetch() const override { return rows_->needs_fetch(); }
  bool IsBetterReadInPlace() override { return rows_->IsBetterReadInPlace(); }
  absl::Status Fetch(const RowSelection& rows, std::byte* out) override {
    return rows_->Fetch({begin_ + rows.begin, rows.count, rows.step}, out);
  }
  bool can_fetch_each() const override { return rows_->can_fetch_each(); }
  absl::Status FetchEach(std::span<const int64_t> rows, std::byte* out) override {
    std::vector<int64_t> of_all(rows.begin(), rows.end());
    for (int64_t& row : of_all) row += begin_;
    return rows_->FetchEach(of_all, out);
  }
  void ExpectFetch(int64_t row) override { rows_->ExpectFetch(begin_ + row); }
  void ReadPastCache(bool past_cache) override { rows_->ReadPastCache(past_cache); }
  void Release() override { rows_->Release(); }
  absl::Status CheckUnchanged() override { return rows_->CheckUnchanged(); }
  int64_t buffer_bytes_per_row() const override { return rows_->buffer_bytes_per_row(); }
  bool is_callers_memory() const override { return rows_->is_callers_memory(); }

 private:
  const std::unique_ptr<RowSource> rows_;
  const int64_t begin_;
};

}  // namespace

std::unique_ptr<RowSource> MakeRowRange(std::unique_ptr<RowSource> rows, int64_t begin,
                                        int64_t end) {
  return std::make_unique<RowRange>(std::move(rows), begin, end);
}

}  // namespace tiny_knn
