#include "core/search/reference_search.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "core/io/row_source.h"
#include "core/matrix/convert.h"
#include "core/matrix/finite.h"
#include "core/search/exact_score.h"
#include "core/search/float_environment.h"
#include "core/search/ranking.h"
#include "core/search/search.h"

namespace tiny_knn {
namespace {

// Docs held at a time; bounds memory, changes nothing else.
constexpr int64_t kDocsPerStep = 256;

// Keeps the best `most` docs: memory must not grow with the number of docs.
template <typename T>
void KeepBest(std::vector<Ranked<T>>& ranked, size_t most) {
  std::sort(ranked.begin(), ranked.end());
  if (ranked.size() > most) ranked.resize(most);
}

template <typename T>
absl::Status ReferenceSearchAs(RowSource& queries, std::span<const int64_t> query_indices,
                               RowSource& docs, const SearchParams& params, const TopKView& out,
                               SearchReport& report) {
  const int64_t dim = docs.dim();
  const size_t row_size = static_cast<size_t>(dim);
  std::vector<std::vector<T>> query_rows;
  ConvertCounts query_counts;
  for (const int64_t index : query_indices) {
    auto view = queries.Rows(index, index + 1);
    if (!view.ok()) return view.status();
    std::vector<T>& row = query_rows.emplace_back(row_size);
    const absl::Status converted =
        ConvertRows<T>(*view, params.compute_dtype, index, row.data(), dim, query_counts);
    if (!converted.ok()) return converted;
    if (!IsFiniteRow(row.data(), dim)) ++report.nonfinite_query_rows;
  }
  queries.Release();

  // One more than asked for tells whether rank k is tied.
  const size_t k = static_cast<size_t>(params.k);
  std::vector<std::vector<Ranked<T>>> ranked(query_rows.size());
  std::vector<T> doc_rows(static_cast<size_t>(kDocsPerStep) * row_size);
  ConvertCounts doc_counts;
  for (int64_t begin = 0; begin < docs.rows(); begin += kDocsPerStep) {
    const int64_t end = std::min(begin + kDocsPerStep, docs.rows());
    auto view = docs.Rows(begin, end);
    if (!view.ok()) return view.status();
    const absl::Status converted = ConvertRows<T>(
        *view, params.compute_dtype, params.first_doc + begin, doc_rows.data(), dim, doc_counts);
    if (!converted.ok()) return converted;
    for (int64_t d = begin; d < end; ++d) {
      const T* doc = doc_rows.data() + (d - begin) * dim;
      if (!IsFiniteRow(doc, dim)) ++report.nonfinite_doc_rows;
      for (size_t i = 0; i < query_rows.size(); ++i) {
        if (params.exclude_self && params.first_doc + d == query_indices[i]) continue;
        const T score = ExactScore(params.metric, query_rows[i].data(), doc, dim);
        ranked[i].push_back({KeyOfScore(score), params.first_doc + d});
        ++report.rescored_pairs;
      }
    }
    docs.Release();
    for (std::vector<Ranked<T>>& docs_of_query : ranked) {
      if (docs_of_query.size() > 2 * (k + 1)) KeepBest(docs_of_query, k + 1);
    }
  }

  for (size_t i = 0; i < ranked.size(); ++i) {
    KeepBest(ranked[i], k + 1);
    for (size_t rank = 0; rank < k; ++rank) {
      static_cast<T*>(out.scores)[i * k + rank] = ScoreOfKey<T>(ranked[i][rank].key);
      out.indices[i * k + rank] = ranked[i][rank].index;
    }
    if (ranked[i].size() > k && ranked[i][k].key == ranked[i][k - 1].key) {
      ++report.queries_with_tie_at_k;
    }
  }
  report.infs_made_in_queries += query_counts.infs_made;
  report.infs_made_in_docs += doc_counts.infs_made;
  return absl::OkStatus();
}

}  // namespace

absl::Status ReferenceSearch(RowSource& queries, std::span<const int64_t> query_indices,
                             RowSource& docs, const SearchParams& params, const TopKView& out,
                             SearchReport& report) {
  const ScopedFloatEnvironment environment;
  if (WorkingDType(params.compute_dtype) == DType::kFloat64) {
    return ReferenceSearchAs<double>(queries, query_indices, docs, params, out, report);
  }
  return ReferenceSearchAs<float>(queries, query_indices, docs, params, out, report);
}

}  // namespace tiny_knn
