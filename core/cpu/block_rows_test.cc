#include "core/cpu/block_rows.h"

#include <cstdint>
#include <cstring>
#include <vector>

#include "absl/status/status.h"
#include "core/io/row_source.h"
#include "core/matrix/dtype.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

// Rows whose elements all are the row's number; those from `end_of_file` on cannot be read.
class NumberedRows : public RowSource {
 public:
  NumberedRows(int64_t rows, int64_t dim, int64_t end_of_file)
      : RowSource("docs", DType::kInt32, rows, dim), end_of_file_(end_of_file) {}
  absl::StatusOr<MatrixView> Rows(int64_t, int64_t) override {
    return absl::InternalError("only fetched");
  }
  bool needs_fetch() const override { return true; }
  absl::Status Fetch(const RowSelection& rows, std::byte* out) override {
    for (int64_t i = 0; i < rows.count; ++i) {
      const int64_t row = rows.begin + i * rows.step;
      if (row >= end_of_file_) return absl::DataLossError("docs: ends too early");
      const std::vector<int32_t> values(static_cast<size_t>(dim()), static_cast<int32_t>(row));
      std::memcpy(out + i * dim() * 4, values.data(), values.size() * 4);
    }
    return absl::OkStatus();
  }
  void Release() override {}
  absl::Status CheckUnchanged() override { return absl::OkStatus(); }
  int64_t buffer_bytes_per_row() const override { return 0; }

 private:
  int64_t end_of_file_;
};

TEST(BlockRowsTest, FetchesPartsOfBlocksOfEverySize) {
  NumberedRows docs(100'000, 100, 100'000);
  BlockRows block;
  // Less than a huge page, more, and less again.
  for (const RowSelection& rows :
       {RowSelection{5, 3}, RowSelection{7, 250, 300}, RowSelection{1000, 20'000},
        RowSelection{21'000, 50'000}, RowSelection{99'000, 1000}}) {
    const MatrixView view = block.Start(docs, rows);
    ASSERT_EQ(view.rows, rows.count);
    ASSERT_EQ(view.row_stride_bytes, 400);
    ASSERT_EQ(reinterpret_cast<uintptr_t>(view.data) % 64, 0u);
    const int64_t half = rows.count / 2;
    ASSERT_TRUE(block.Fetch({half, rows.count}).ok());
    ASSERT_TRUE(block.Fetch({0, half}).ok());
    for (int64_t i = 0; i < rows.count; ++i) {
      const auto* const row = static_cast<const int32_t*>(view.Row(i));
      ASSERT_EQ(row[0], rows.begin + i * rows.step);
      ASSERT_EQ(row[99], rows.begin + i * rows.step);
    }
    // The last rows to where the second one lies: no other changes.
    const auto moved = block.FetchTo(1, {rows.count - 2, rows.count});
    ASSERT_TRUE(moved.ok());
    ASSERT_EQ(moved->rows, 2);
    ASSERT_EQ(moved->data, view.Row(1));
    for (int64_t i = 0; i < 2; ++i) {
      ASSERT_EQ(static_cast<const int32_t*>(moved->Row(i))[99],
                rows.begin + (rows.count - 2 + i) * rows.step);
    }
    ASSERT_EQ(static_cast<const int32_t*>(view.Row(0))[99], rows.begin);
    if (rows.count > 3) {
      ASSERT_EQ(static_cast<const int32_t*>(view.Row(3))[0], rows.begin + 3 * rows.step);
    }
  }
}

TEST(BlockRowsTest, PiecesAreWholeRowsThatACoresCacheHolds) {
  NumberedRows docs(10, 100, 10);
  BlockRows block;
  block.Start(docs, {0, 10});
  EXPECT_EQ(block.piece_rows() * 400 / 1024, 255);
  NumberedRows long_rows(2, 1 << 20, 2);
  block.Start(long_rows, {0, 2});
  EXPECT_EQ(block.piece_rows(), 1);
}

TEST(BlockRowsTest, SaysWhatTheSourceSays) {
  NumberedRows docs(10, 3, 4);
  BlockRows block;
  block.Start(docs, {0, 10});
  EXPECT_TRUE(block.Fetch({0, 4}).ok());
  EXPECT_EQ(block.Fetch({4, 10}).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace tiny_knn
