#include "core/job/verify.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <set>
#include <span>

#include "core/search/reference_search.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// Uniform in [0, bound). std::uniform_int_distribution differs between standard libraries.
uint64_t UniformBelow(std::mt19937_64& random, uint64_t bound) {
  const uint64_t unbiased_end = UINT64_MAX - UINT64_MAX % bound;
  uint64_t value = random();
  while (value >= unbiased_end) value = random();
  return value % bound;
}

std::string ScoreText(DType dtype, const void* score) {
  if (dtype == DType::kFloat64) {
    double value;
    std::memcpy(&value, score, sizeof value);
    return fmt::format("{}", value);
  }
  float value;
  std::memcpy(&value, score, sizeof value);
  return fmt::format("{}", value);
}

}  // namespace

std::vector<int64_t> SampleDistinct(int64_t population, int64_t count, uint64_t seed) {
  count = std::min(count, population);
  std::mt19937_64 random(seed);
  // Floyd's sampling: each step adds exactly one new number, and every subset is as likely.
  std::set<int64_t> chosen;
  for (int64_t top = population - count; top < population; ++top) {
    const auto pick = static_cast<int64_t>(UniformBelow(random, static_cast<uint64_t>(top) + 1));
    if (!chosen.insert(pick).second) chosen.insert(top);
  }
  return {chosen.begin(), chosen.end()};
}

absl::StatusOr<std::string> FindMismatch(RowSource& queries, int64_t query, RowSource& docs,
                                         const SearchParams& params, const TopKView& found) {
  const auto item = static_cast<size_t>(ItemSize(found.score_dtype));
  std::vector<int64_t> indices(static_cast<size_t>(found.k));
  std::vector<std::byte> scores(static_cast<size_t>(found.k) * item);
  TopKView expected{1, found.k, found.score_dtype, scores.data(), indices.data()};
  SearchReport ignored;
  const int64_t wanted[] = {query};
  absl::Status status = ReferenceSearch(queries, wanted, docs, params, expected, ignored);
  if (!status.ok()) return status;

  const auto* found_scores = static_cast<const std::byte*>(found.scores);
  for (int64_t rank = 0; rank < found.k; ++rank) {
    const size_t at = static_cast<size_t>(rank) * item;
    // Bits, not values: NaN must be the NaN of the contract and zero must be +0.0.
    if (found.indices[rank] == indices[static_cast<size_t>(rank)] &&
        std::memcmp(found_scores + at, scores.data() + at, item) == 0) {
      continue;
    }
    return fmt::format(
        "query {} of {} differs from exact arithmetic at rank {}: found doc {} with score {}, "
        "expected doc {} with score {}",
        query, queries.name(), rank + 1, found.indices[rank],
        ScoreText(found.score_dtype, found_scores + at), indices[static_cast<size_t>(rank)],
        ScoreText(found.score_dtype, scores.data() + at));
  }
  return std::string();
}

}  // namespace tiny_knn
