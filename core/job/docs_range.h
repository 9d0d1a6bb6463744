// Which docs of a file a job searches, as people write it: "A:B".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace tiny_knn {

// Docs [begin, end) of a file.
struct DocsRange {
  int64_t begin = 0;
  std::optional<int64_t> end;  // nothing: to the last one
  bool operator==(const DocsRange&) const = default;
};

// "A:B", "A:" or ":B", digits. InvalidArgument that continues the name of a flag or a member: "
// expects ...". Pure; safe on any bytes.
absl::StatusOr<DocsRange> ParseDocsRange(std::string_view text);

// What ParseDocsRange reads as the same.
std::string DocsRangeText(const DocsRange& range);

// The same range with its end filled in. InvalidArgument, naming `docs`, where it is empty or
// reaches beyond `num_docs`: a range that was cut short silently would be missed when parts are
// merged.
absl::StatusOr<DocsRange> ResolveDocsRange(const DocsRange& range, int64_t num_docs,
                                           std::string_view docs);

}  // namespace tiny_knn
