// Any bytes at all go through the reader of .npz results: it must not crash, read out of bounds,
// take memory out of proportion, or accept arrays that do not fit each other.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "core/io/result_npz.h"

namespace tiny_knn {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

void CheckOne(std::span<const uint8_t> bytes) {
  const absl::StatusOr<ResultFile> result = ParseResultNpz(bytes);
  if (!result.ok()) {
    Require(result.status().code() == absl::StatusCode::kInvalidArgument);
    const std::string message(result.status().message());
    Require(!message.empty() && message.size() < 1000);
    for (char c : message) Require(c >= ' ' && c <= '~');  // one printable line
    return;
  }
  const ResultMetadata& metadata = result->metadata;
  Require(metadata.num_queries >= 0 && metadata.k >= 0);
  const auto elements = static_cast<__int128>(metadata.num_queries) * metadata.k;
  Require(elements == static_cast<__int128>(result->indices.size()));
  Require(elements == static_cast<__int128>(result->scores.size()));
  // Two arrays of at least 8 + 4 bytes an element lie in the input, or are one and the same bytes.
  Require(result->indices.size() * sizeof(int64_t) <= bytes.size());
}

}  // namespace
}  // namespace tiny_knn

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // An exact copy on the heap: reading one byte beyond it is seen.
  const std::vector<uint8_t> bytes(data, data + size);
  tiny_knn::CheckOne(bytes);
  return 0;
}
