#include "core/io/row_fingerprint.h"

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "fmt/format.h"

namespace tiny_knn {
namespace {

constexpr int64_t kStepBytes = int64_t{4} << 20;
constexpr int64_t kSampledRows = 256;

// Adds rows [begin, end) to a checksum.
absl::Status AddRows(RowSource& rows, int64_t begin, int64_t end, uint32_t& crc) {
  const absl::StatusOr<MatrixView> view = rows.Rows(begin, end);
  if (!view.ok()) return view.status();
  const auto bytes = static_cast<size_t>(rows.dim() * ItemSize(rows.dtype()));
  for (int64_t i = 0; i < view->rows && bytes > 0; ++i) {
    crc = static_cast<uint32_t>(crc32_z(crc, static_cast<const Bytef*>(view->Row(i)), bytes));
  }
  rows.Release();
  return absl::OkStatus();
}

std::string TextOf(const RowSource& rows, std::string_view of, uint32_t crc) {
  return fmt::format("{}x{} {} {}crc32 {:08x}", rows.rows(), rows.dim(), DTypeName(rows.dtype()),
                     of, crc);
}

}  // namespace

absl::StatusOr<std::string> FingerprintOfRows(RowSource& rows) {
  const int64_t row_bytes = std::max<int64_t>(1, rows.dim() * ItemSize(rows.dtype()));
  const int64_t step = std::max<int64_t>(1, kStepBytes / row_bytes);
  uint32_t crc = 0;
  for (int64_t begin = 0; begin < rows.rows(); begin += step) {
    const absl::Status added = AddRows(rows, begin, std::min(begin + step, rows.rows()), crc);
    if (!added.ok()) return added;
  }
  const absl::Status unchanged = rows.CheckUnchanged();
  if (!unchanged.ok()) return unchanged;
  return TextOf(rows, "", crc);
}

absl::StatusOr<std::string> FingerprintOfSample(RowSource& rows) {
  const int64_t count = std::min(rows.rows(), kSampledRows);
  uint32_t crc = 0;
  for (int64_t i = 0; i < count; ++i) {
    const auto row =
        count == 1
            ? 0
            : static_cast<int64_t>(static_cast<__int128>(i) * (rows.rows() - 1) / (count - 1));
    const absl::Status added = AddRows(rows, row, row + 1, crc);
    if (!added.ok()) return added;
  }
  const absl::Status unchanged = rows.CheckUnchanged();
  if (!unchanged.ok()) return unchanged;
  return TextOf(rows, "sample ", crc);
}

}  // namespace tiny_knn
