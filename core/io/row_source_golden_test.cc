// Reads every file that numpy wrote (testdata/make_golden.py) and compares each element with the
// formula of that script.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/io/row_source.h"
#include "core/matrix/convert.h"
#include "core/matrix/dtype.h"
#include "core/matrix/matrix_view.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

const char kFolder[] = "core/io/testdata/golden/";

double Expected(DType dtype, int64_t i, int64_t j) {
  const int64_t base = (7 * i + 3 * j) % 11;
  if (IsFloatingPoint(dtype)) return static_cast<double>(base - 5) * 0.25;
  if (dtype == DType::kBool) return base > 5 ? 1 : 0;
  if (dtype == DType::kUInt8) return static_cast<double>(base);
  return static_cast<double>(base - 5);
}

DType DTypeOf(const std::string& file) {
  const std::pair<const char*, DType> kPrefixes[] = {
      {"b1", DType::kBool},          {"i1", DType::kInt8},    {"u1", DType::kUInt8},
      {"i2", DType::kInt16},         {"i4", DType::kInt32},   {"i8", DType::kInt64},
      {"f2", DType::kFloat16},       {"f4", DType::kFloat32}, {"f8", DType::kFloat64},
      {"bfloat16", DType::kBFloat16}};
  for (const auto& [prefix, dtype] : kPrefixes) {
    if (file.starts_with(prefix)) return dtype;
  }
  ADD_FAILURE() << "no dtype for " << file;
  return DType::kFloat32;
}

std::pair<int64_t, int64_t> ShapeOf(const std::string& file) {
  const auto has = [&file](const char* part) { return file.find(part) != std::string::npos; };
  if (has("_wide")) return {2, 67};
  if (has("_one_row")) return {1, 4};
  if (has("_one_column")) return {4, 1};
  if (has("_no_rows")) return {0, 3};
  if (has("_no_columns")) return {3, 0};
  return {5, 3};
}

std::vector<std::string> GoldenFiles() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("refuse_")) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

// Rows [begin, end) of the file are what the script says.
void CheckRows(RowSource& source, int64_t begin, int64_t end) {
  const absl::StatusOr<MatrixView> view = source.Rows(begin, end);
  ASSERT_TRUE(view.ok()) << view.status();
  ASSERT_EQ(view->rows, end - begin);
  ASSERT_EQ(view->dim, source.dim());
  ASSERT_EQ(view->dtype, source.dtype());
  std::vector<double> values(static_cast<size_t>((end - begin) * source.dim()));
  ConvertCounts counts;
  ASSERT_TRUE(
      ConvertRows<double>(*view, DType::kFloat64, begin, values.data(), source.dim(), counts).ok());
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t j = 0; j < source.dim(); ++j) {
      ASSERT_EQ(values[static_cast<size_t>((i - begin) * source.dim() + j)],
                Expected(source.dtype(), i, j))
          << source.name() << " (" << i << ", " << j << ")";
    }
  }
}

class GoldenTest : public testing::TestWithParam<std::string> {};

TEST_P(GoldenTest, EveryElementIsWhatNumpyWrote) {
  const std::string& file = GetParam();
  const DType dtype = DTypeOf(file);
  const std::optional<DType> input =
      dtype == DType::kBFloat16 ? std::optional(dtype) : std::nullopt;
  for (bool never_map : {false, true}) {
    const auto source = OpenNpyRowSource(kFolder + file, input, {.never_map = never_map});
    ASSERT_TRUE(source.ok()) << source.status();
    RowSource& rows = **source;
    EXPECT_EQ(rows.dtype(), dtype);
    EXPECT_EQ(std::pair(rows.rows(), rows.dim()), ShapeOf(file));
    CheckRows(rows, 0, rows.rows());
    for (int64_t begin = 0; begin <= rows.rows(); ++begin) {
      for (int64_t end = begin; end <= rows.rows(); ++end) CheckRows(rows, begin, end);
      rows.Release();
    }
    EXPECT_TRUE(rows.CheckUnchanged().ok());
    const bool transposed = file.find("fortran") != std::string::npos;
    const bool swapped = file.find("_big") != std::string::npos;
    if (transposed || swapped || never_map) {
      EXPECT_EQ(rows.buffer_bytes_per_row(), rows.dim() * ItemSize(dtype));
    } else if (file.find("_odd_") == std::string::npos && rows.stored_bytes() > 0 &&
               file.find("python2") == std::string::npos) {
      EXPECT_EQ(rows.buffer_bytes_per_row(), 0) << "should be mapped";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Numpy, GoldenTest, testing::ValuesIn(GoldenFiles()), [](const auto& test) {
  return test.param.substr(0, test.param.size() - 4);
});

TEST(GoldenFilesTest, NoneIsMissing) { EXPECT_EQ(GoldenFiles().size(), 82u); }

struct Refusal {
  std::string file;
  std::string message;
};

class GoldenRefusalTest : public testing::TestWithParam<Refusal> {};

TEST_P(GoldenRefusalTest, SaysWhatWasFoundAndWhatIsExpected) {
  const std::string path = std::string(kFolder) + GetParam().file + ".npy";
  const auto source = OpenNpyRowSource(path, std::nullopt);
  ASSERT_FALSE(source.ok());
  EXPECT_EQ(source.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message(source.status().message());
  EXPECT_EQ(message, path + ": " + GetParam().message);
}

const char kExpected[] =
    "; expected one of float32, float64, float16, bfloat16, int8, uint8, int16, int32, int64, bool";
const char kConvert[] = "; convert it, for example a.astype('float32')";

INSTANTIATE_TEST_SUITE_P(
    Numpy, GoldenRefusalTest,
    testing::Values(
        Refusal{"refuse_0d",
                "is 0-D with shape (); expected 2-D (rows, dim): reshape it (it holds "
                "a single value)"},
        Refusal{"refuse_1d",
                "is 1-D with shape (3,); expected 2-D (rows, dim): reshape it (for one "
                "row, a.reshape(1, -1))"},
        Refusal{"refuse_3d",
                "is 3-D with shape (2, 1, 2); expected 2-D (rows, dim): reshape it "
                "(for example a.reshape(-1, a.shape[-1]))"},
        Refusal{"refuse_object", std::string("holds Python objects (descr '|O')") + kExpected +
                                     "; save an array of numbers, for example "
                                     "numpy.stack(list(a)).astype('float32')"},
        Refusal{"refuse_structured", std::string("holds a structured dtype of 2 fields") +
                                         kExpected +
                                         "; save one field, for example a['name'], or use "
                                         "numpy.lib.recfunctions.structured_to_unstructured"},
        Refusal{"refuse_complex", std::string("holds complex64 (descr '<c8')") + kExpected +
                                      "; take the real part or the magnitude, for example a.real"},
        Refusal{"refuse_datetime", std::string("holds datetime64 (descr '<M8[ns]')") + kExpected},
        Refusal{"refuse_strings", std::string("holds strings (descr '<U3')") + kExpected},
        Refusal{"refuse_bytes", std::string("holds byte strings (descr '|S3')") + kExpected},
        Refusal{"refuse_uint16", std::string("holds uint16 (descr '<u2')") + kExpected + kConvert},
        Refusal{"refuse_uint32", std::string("holds uint32 (descr '<u4')") + kExpected + kConvert},
        Refusal{"refuse_uint64", std::string("holds uint64 (descr '<u8')") + kExpected + kConvert},
        Refusal{"refuse_longdouble",
                std::string("holds float128 (long double) (descr '<f16')") + kExpected + kConvert},
        Refusal{"refuse_void",
                std::string("holds raw data of 3 bytes an element (descr '|V3')") + kExpected},
        Refusal{"bfloat16_raw",
                std::string("holds raw data of 2 bytes an element (descr '|V2')") + kExpected +
                    "; if it is bfloat16 written by numpy with ml_dtypes, pass --input-dtype "
                    "bfloat16"}),
    [](const auto& test) { return test.param.file; });

TEST(GoldenFilesTest, InputDTypeThatContradictsTheFileIsRefused) {
  const auto source = OpenNpyRowSource(std::string(kFolder) + "f4.npy", DType::kFloat16);
  EXPECT_EQ(std::string(source.status().message()),
            std::string(kFolder) +
                "f4.npy: --input-dtype float16 contradicts the file, which holds float32 (descr "
                "'<f4'); leave --input-dtype out");
  EXPECT_TRUE(OpenNpyRowSource(std::string(kFolder) + "f4.npy", DType::kFloat32).ok());
}

}  // namespace
}  // namespace tiny_knn
