// The header of an .npy file (versions 1, 2 and 3), parsed as the grammar it is.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/matrix/dtype.h"

namespace tiny_knn {

// Largest header (the Python dict literal) that is read; numpy's own are below 200 bytes.
inline constexpr int64_t kMaxNpyHeaderBytes = 64 * 1024;

struct NpyHeader {
  DType dtype = DType::kFloat32;
  bool fortran_order = false;  // element (i, j) at data[j * rows + i]
  bool swap_bytes = false;     // stored in the other byte order
  int64_t rows = 0;
  int64_t dim = 0;
  int64_t data_offset = 0;  // bytes from the start of the file to element (0, 0)

  int64_t data_bytes() const { return rows * dim * ItemSize(dtype); }
};

// Parses the start of a file. `start` holds the file's first bytes: all of them, or at least
// 12 + kMaxNpyHeaderBytes. The result's sizes are checked: rows * dim * item size and its sum with
// data_offset fit int64_t. Errors are InvalidArgument in one line that says what was found and what
// is expected, without the file's name (the caller adds it). Never reads outside `start`.
absl::StatusOr<NpyHeader> ParseNpyHeader(std::span<const uint8_t> start,
                                         std::optional<DType> input_dtype);

}  // namespace tiny_knn
