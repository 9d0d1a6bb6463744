// What the fuzz tests of the result readers ask of each of them: any bytes at all must not crash
// it, make it read out of bounds or take memory out of proportion, or give arrays that do not fit
// each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/io/result.h"

namespace tiny_knn {

using ResultParser = absl::StatusOr<ResultFile> (*)(std::span<const uint8_t> bytes);

inline void RequireOfResultParser(bool condition) {
  if (!condition) std::abort();
}

inline void FuzzResultParser(ResultParser parse, const uint8_t* data, size_t size) {
  // An exact copy on the heap: reading one byte beyond it is seen.
  const std::vector<uint8_t> bytes(data, data + size);
  const absl::StatusOr<ResultFile> result = parse(bytes);
  if (!result.ok()) {
    RequireOfResultParser(result.status().code() == absl::StatusCode::kInvalidArgument);
    const std::string message(result.status().message());
    RequireOfResultParser(!message.empty() && message.size() < 1000);
    for (char c : message) RequireOfResultParser(c >= ' ' && c <= '~');  // one printable line
    return;
  }
  const ResultMetadata& metadata = result->metadata;
  RequireOfResultParser(metadata.num_queries >= 0 && metadata.k >= 0);
  const auto elements = static_cast<__int128>(metadata.num_queries) * metadata.k;
  RequireOfResultParser(elements == static_cast<__int128>(result->indices.size()));
  RequireOfResultParser(elements == static_cast<__int128>(result->scores.size()));
  // Two arrays of at least 8 + 4 bytes an element lie in the input, or are one and the same bytes.
  RequireOfResultParser(result->indices.size() * sizeof(int64_t) <= bytes.size());
}

}  // namespace tiny_knn
