#include "core/job/docs_range.h"

#include <charconv>
#include <system_error>

#include "absl/status/status.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

std::optional<int64_t> ParseDigits(std::string_view text) {
  if (text.empty() || text.front() < '0' || text.front() > '9') return std::nullopt;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

absl::StatusOr<DocsRange> ParseDocsRange(std::string_view text) {
  const absl::Status refused = absl::InvalidArgumentError(
      "expects a range of docs such as 0:1000, 1000: or :1000, the first one and the one behind "
      "the last");
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) return refused;
  const std::string_view begin_text = text.substr(0, colon);
  const std::string_view end_text = text.substr(colon + 1);
  const std::optional<int64_t> begin = begin_text.empty() ? 0 : ParseDigits(begin_text);
  const std::optional<int64_t> end = ParseDigits(end_text);
  if (!begin || (!end && !end_text.empty())) return refused;
  if (end && *end <= *begin) {
    return absl::InvalidArgumentError(fmt::format(
        "{}:{} is an empty range of docs: the end must be greater than the begin", *begin, *end));
  }
  return DocsRange{*begin, end};
}

std::string DocsRangeText(const DocsRange& range) {
  return range.end ? fmt::format("{}:{}", range.begin, *range.end)
                   : fmt::format("{}:", range.begin);
}

absl::StatusOr<DocsRange> ResolveDocsRange(const DocsRange& range, int64_t num_docs,
                                           std::string_view docs) {
  const int64_t end = range.end.value_or(num_docs);
  if (range.begin < 0 || range.begin >= num_docs || end > num_docs || end <= range.begin) {
    return absl::InvalidArgumentError(
        fmt::format("docs range {} is not within the docs of {}: it has {} (0:{})",
                    DocsRangeText(range), docs, num_docs, num_docs));
  }
  return DocsRange{range.begin, end};
}

}  // namespace tiny_knn
