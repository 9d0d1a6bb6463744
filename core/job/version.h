// The one place that knows the version: `--version`, and `tiny_knn_version` in result files.
#pragma once

#include <string_view>

namespace tiny_knn {

inline constexpr std::string_view kTinyKnnVersion = "0.1.0";

}  // namespace tiny_knn
