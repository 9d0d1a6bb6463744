// One line of either protocol as a JSON object, refused unless it is harmless: what every decoder
// of messages starts from.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace tiny_knn {

// Deepest nesting of objects and arrays in a message.
inline constexpr int kMostJsonDepth = 16;

// InvalidArgument in one line (without the peer's bytes, which may be anything) for what is not one
// JSON object: no valid UTF-8, NUL or other control bytes, nesting beyond kMostJsonDepth, a member
// given twice, numbers that are no doubles, anything before or behind it. Never throws, never
// recurses deeper than kMostJsonDepth. Pure.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view line);

}  // namespace tiny_knn
