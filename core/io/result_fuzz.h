// What the fuzz tests of the result readers ask of each of them: any bytes at all must not crash
// it, make it read out of bounds or take memory out of proportion, or give arrays that do not fit
// each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/io/result.h"

namespace tiny_knn {

using ResultParser = absl::StatusOr<ResultView> (*)(std::span<const uint8_t> bytes);

inline void RequireOfResultParser(bool condition) {
  if (!condition) std::abort();
}

inline void FuzzResultParser(ResultParser parse, const uint8_t* data, size_t size) {
  // An exact copy on the heap: reading one byte beyond it is seen.
  const std::vector<uint8_t> bytes(data, data + size);
  const absl::StatusOr<ResultView> result = parse(bytes);
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
  RequireOfResultParser(elements * 8 == static_cast<__int128>(result->indices.size()));
  RequireOfResultParser(elements * ItemSize(metadata.score_dtype) ==
                        static_cast<__int128>(result->scores.size()));
  // Every byte can be read.
  uint8_t sum = 0;
  for (const std::string_view array : {result->indices, result->scores}) {
    for (const char byte : array) sum = static_cast<uint8_t>(sum + static_cast<uint8_t>(byte));
  }
  volatile uint8_t read = sum;
  static_cast<void>(read);
}

}  // namespace tiny_knn
