// From the dtype of a file to the values a search computes with: one rounding per element.
//
// A value goes file dtype -> compute dtype -> working type (float32 or float64, see
// WorkingDType). The first step is one rounding to nearest even, subnormals kept, never through a
// third type (float64 to float16 through float32 would round twice). The second step is exact but
// for int32 and int64, which round once to float32. Results do not depend on the instruction set
// or on the floating-point environment's DAZ/FTZ bits being clear: callers run under
// ScopedFloatEnvironment (core/search/float_environment.h) or the default environment.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "core/matrix/dtype.h"
#include "core/matrix/matrix_view.h"

namespace tiny_knn {

// IEEE binary16 and bfloat16 are carried as their bits.
float Float16ToFloat32(uint16_t bits);
float BFloat16ToFloat32(uint16_t bits);
uint16_t Float64ToFloat16(double value);   // one rounding; exact for every float32 and float16
uint16_t Float64ToBFloat16(double value);  // likewise; NaN stays a (quiet) NaN
uint16_t Int64ToBFloat16(int64_t value);   // one rounding even beyond 2^53

// Whether a file of dtype `from` may be searched in `compute_dtype` at all. Refused
// (InvalidArgument): floating point to integer, and a compute dtype that IsComputeDType refuses.
// Integer to a narrower integer is allowed here and checked value by value in ConvertRows.
absl::Status CheckConversion(DType from, DType compute_dtype);

// Whether rows of dtype `from` already are their working values, so that no conversion is needed.
bool IsIdentityConversion(DType from, DType compute_dtype);

// Whether `rows` can be read as working values where they lie: an identity conversion, and rows
// aligned to their elements. `T` is the working type.
template <typename T>
bool AreWorkingRows(const MatrixView& rows, DType compute_dtype);

struct ConvertCounts {
  // Elements that were finite in the file and are infinite in the compute dtype.
  int64_t infs_made = 0;
};

// Writes the working values of all of `rows` to `out`, row-major, row i at out + i * out_stride
// (elements; out_stride >= rows.dim). `T` is float or double and must be
// WorkingDType(compute_dtype). Adds to `counts`. An integer that its integer compute dtype cannot
// hold is InvalidArgument naming its value, its column and its row (`first_row` + i); `out` is then
// partly written. REQUIRES: CheckConversion(rows.dtype, compute_dtype).ok().
template <typename T>
absl::Status ConvertRows(const MatrixView& rows, DType compute_dtype, int64_t first_row, T* out,
                         int64_t out_stride, ConvertCounts& counts);

}  // namespace tiny_knn
