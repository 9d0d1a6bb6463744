// Rows of memory that somebody else owns.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "core/io/row_source.h"
#include "core/matrix/dtype.h"
#include "core/matrix/matrix_view.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

TEST(MemoryRowSourceTest, HandsOutSlicesOfTheMatrix) {
  const std::vector<float> values = {1, 2, -7, 3, 4, -7, 5, 6, -7};
  const auto source =
      MakeMemoryRowSource("queries", MatrixView{values.data(), DType::kFloat32, 3, 2, 12});
  EXPECT_EQ(source->name(), "queries");
  EXPECT_EQ(source->rows(), 3);
  EXPECT_EQ(source->dim(), 2);
  EXPECT_EQ(source->dtype(), DType::kFloat32);
  EXPECT_EQ(source->buffer_bytes_per_row(), 0);
  EXPECT_EQ(source->stored_bytes(), 24);
  const auto view = source->Rows(1, 3);
  ASSERT_TRUE(view.ok());
  EXPECT_EQ(view->data, values.data() + 3);
  EXPECT_EQ(view->row_stride_bytes, 12);
  EXPECT_EQ(static_cast<const float*>(view->Row(1))[1], 6.0f);
  EXPECT_TRUE(source->CheckUnchanged().ok());
}

// Element (i, j) of these is 10 i + j, whatever the layout.
void ExpectTensAndOnes(RowSource& source, int64_t begin, int64_t end) {
  const auto view = source.Rows(begin, end);
  ASSERT_TRUE(view.ok());
  ASSERT_EQ(view->rows, end - begin);
  for (int64_t i = 0; i < view->rows; ++i) {
    for (int64_t j = 0; j < view->dim; ++j) {
      int16_t value;
      std::memcpy(&value, static_cast<const std::byte*>(view->Row(i)) + 2 * j, sizeof(value));
      EXPECT_EQ(value, 10 * (begin + i) + j) << i << ", " << j;
    }
  }
}

struct Strides {
  std::string name;
  int64_t row_stride, column_stride;  // in elements
  bool swap = false;
  bool in_place = false;
};

class StridedRowSourceTest : public testing::TestWithParam<Strides> {};

TEST_P(StridedRowSourceTest, HandsOutTheSameRowsOfEveryLayout) {
  const Strides& layout = GetParam();
  constexpr int64_t kRows = 70, kDim = 5;
  constexpr int64_t kOrigin = 70 * 70 * 2;
  // One byte off, so that no element is aligned.
  std::vector<std::byte> memory(2 * kOrigin * 2 + 1);
  std::byte* const origin = memory.data() + 1 + kOrigin * 2;
  for (int64_t i = 0; i < kRows; ++i) {
    for (int64_t j = 0; j < kDim; ++j) {
      auto value = static_cast<uint16_t>(10 * i + j);
      if (layout.swap) value = __builtin_bswap16(value);
      std::memcpy(origin + 2 * (i * layout.row_stride + j * layout.column_stride), &value, 2);
    }
  }
  const auto source = MakeStridedRowSource("docs", {.data = origin,
                                                    .dtype = DType::kInt16,
                                                    .rows = kRows,
                                                    .dim = kDim,
                                                    .row_stride_bytes = 2 * layout.row_stride,
                                                    .column_stride_bytes = 2 * layout.column_stride,
                                                    .swap_bytes = layout.swap});
  EXPECT_EQ(source->buffer_bytes_per_row(), layout.in_place ? 0 : 2 * kDim);
  EXPECT_EQ(source->is_callers_memory(), layout.in_place);
  ExpectTensAndOnes(*source, 0, kRows);
  ExpectTensAndOnes(*source, 3, 69);
  ExpectTensAndOnes(*source, 7, 7);
  if (layout.in_place) {
    EXPECT_EQ(source->Rows(0, 1)->data, origin);
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, StridedRowSourceTest,
                         testing::Values(Strides{"Rows", 5, 1, false, true},
                                         Strides{"PaddedRows", 9, 1, false, true},
                                         Strides{"Columns", 1, 70}, Strides{"RowsBackwards", -5, 1},
                                         Strides{"ColumnsBackwards", 5, -1},
                                         Strides{"EverySecondColumn", 10, 2},
                                         Strides{"OtherByteOrder", 5, 1, true},
                                         Strides{"ColumnsInOtherOrder", 1, 70, true}),
                         [](const auto& layout) { return layout.param.name; });

TEST(StridedRowSourceTest, RowsThatOverlapAreCopied) {
  const std::vector<float> values = {0, 1, 2, 3, 4, 5};
  const auto source = MakeStridedRowSource("windows", {values.data(), DType::kFloat32, 4, 3, 4, 4});
  EXPECT_EQ(source->buffer_bytes_per_row(), 12);
  const auto view = source->Rows(1, 4);
  ASSERT_TRUE(view.ok());
  for (int64_t i = 0; i < 3; ++i) {
    const auto* row = static_cast<const float*>(view->Row(i));
    EXPECT_EQ((std::vector<float>{row, row + 3}),
              (std::vector<float>{static_cast<float>(i + 1), static_cast<float>(i + 2),
                                  static_cast<float>(i + 3)}));
  }
}

TEST(StridedRowSourceTest, OneRowRepeatedAndOneColumnStayWhereTheyAre) {
  const std::vector<float> values = {1, 2, 3};
  const auto repeated = MakeStridedRowSource("r", {values.data(), DType::kFloat32, 9, 3, 0, 4});
  EXPECT_EQ(repeated->buffer_bytes_per_row(), 0);
  EXPECT_EQ(static_cast<const float*>(repeated->Rows(5, 9)->Row(3))[2], 3.0F);
  // The strides of what there is one of say nothing.
  const auto column = MakeStridedRowSource("c", {values.data(), DType::kFloat32, 3, 1, 4, -99});
  EXPECT_EQ(column->buffer_bytes_per_row(), 0);
  const auto row = MakeStridedRowSource("o", {values.data(), DType::kFloat32, 1, 3, -99, 4});
  EXPECT_EQ(row->buffer_bytes_per_row(), 0);
  EXPECT_EQ(row->Rows(0, 1)->row_stride_bytes, 12);
}

}  // namespace
}  // namespace tiny_knn
