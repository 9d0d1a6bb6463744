// Any bytes at all go through the header parser: it must not crash, read out of bounds, or accept
// what breaks the promises of npy.h.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/io/npy.h"
#include "core/matrix/dtype.h"

namespace tiny_knn {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

void CheckOne(std::span<const uint8_t> bytes, std::optional<DType> input_dtype) {
  const absl::StatusOr<NpyHeader> header = ParseNpyHeader(bytes, input_dtype);
  if (!header.ok()) {
    Require(header.status().code() == absl::StatusCode::kInvalidArgument);
    const std::string message(header.status().message());
    Require(!message.empty() && message.size() < 1000);
    for (char c : message) Require(c >= ' ' && c <= '~');  // one printable line
    return;
  }
  Require(header->rows >= 0 && header->dim >= 0);
  Require(header->data_offset >= 10 && header->data_offset <= static_cast<int64_t>(bytes.size()));
  const auto data = static_cast<__int128>(header->rows) * header->dim * ItemSize(header->dtype);
  Require(data + header->data_offset <= std::numeric_limits<int64_t>::max());
  Require(header->data_bytes() == data);
  Require(!header->swap_bytes || ItemSize(header->dtype) > 1);
  if (input_dtype.has_value()) Require(header->dtype == *input_dtype);
}

}  // namespace
}  // namespace tiny_knn

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // An exact copy on the heap: reading one byte beyond it is seen.
  const std::vector<uint8_t> bytes(data, data + size);
  tiny_knn::CheckOne(bytes, std::nullopt);
  tiny_knn::CheckOne(bytes, tiny_knn::DType::kBFloat16);
  return 0;
}
