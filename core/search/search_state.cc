#include "core/search/search_state.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "core/search/ranking.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

constexpr uint64_t kLargestFloat32Key = 0xFFFFFFFF;

bool ComesBefore(const SavedDoc& a, const SavedDoc& b) {
  return a.key != b.key ? a.key > b.key : a.index < b.index;
}

template <typename T>
void AppendRows(const TopKView& out, SearchSpan& span) {
  const auto* scores = static_cast<const T*>(out.scores);
  for (int64_t i = 0; i < out.num_queries * out.k; ++i) {
    span.docs.push_back({KeyOfScore(scores[i]), out.indices[i]});
  }
}

template <typename T>
void WriteRowsAs(const SearchSpan& span, const TopKView& out) {
  auto* scores = static_cast<T*>(out.scores);
  int64_t first = 0;  // of the query's docs
  for (int64_t query = 0; query < out.num_queries; ++query) {
    for (int64_t rank = 0; rank < out.k; ++rank) {
      const SavedDoc& doc = span.docs[static_cast<size_t>(first + rank)];
      scores[query * out.k + rank] = ScoreOfKey<T>(static_cast<ScoreKey<T>>(doc.key));
      out.indices[query * out.k + rank] = doc.index;
    }
    first += span.counts[static_cast<size_t>(query)];
  }
}

// Of a span whose counts were not checked yet: their sum, at most one more than there are docs.
bool CountsFit(const SearchSpan& span, int64_t k) {
  int64_t docs_left = static_cast<int64_t>(span.docs.size());
  for (const int64_t count : span.counts) {
    if (count < 0 || count > k + 1 || count > docs_left) return false;
    docs_left -= count;
  }
  return docs_left == 0;
}

bool DocsFit(const SearchSpan& span, const SearchParams& params) {
  const bool wide = WorkingDType(params.compute_dtype) == DType::kFloat64;
  const int64_t end = params.first_doc + span.docs_done;
  size_t at = 0;
  for (int64_t i = 0; i < span.num_queries; ++i) {
    const int64_t query = span.first_query + i;
    const int64_t count = span.counts[static_cast<size_t>(i)];
    const bool loses_one = params.exclude_self && query >= params.first_doc &&
                           query < params.first_doc + span.docs_done;
    if (count < std::min(params.k, span.docs_done - (loses_one ? 1 : 0))) return false;
    for (int64_t rank = 0; rank < count; ++rank, ++at) {
      const SavedDoc& doc = span.docs[at];
      if (doc.index < params.first_doc || doc.index >= end) return false;
      if (params.exclude_self && doc.index == query) return false;
      if (!wide && doc.key > kLargestFloat32Key) return false;
      if (rank > 0 && !ComesBefore(span.docs[at - 1], doc)) return false;
    }
  }
  return true;
}

}  // namespace

SearchSpan SearchSpan::Part(int64_t begin, int64_t end) const {
  SearchSpan part;
  part.first_query = first_query + begin;
  part.num_queries = end - begin;
  part.docs_done = docs_done;
  int64_t first = 0;
  for (int64_t i = 0; i < begin; ++i) first += counts[static_cast<size_t>(i)];
  part.counts.assign(counts.begin() + begin, counts.begin() + end);
  int64_t last = first;
  for (const int64_t count : part.counts) last += count;
  part.docs.assign(docs.begin() + first, docs.begin() + last);
  return part;
}

absl::Status CheckState(const SearchState& state, int64_t num_queries, int64_t num_docs,
                        const SearchParams& params) {
  const absl::Status refused = absl::InvalidArgumentError(
      fmt::format("holds no state of a search of {} queries and {} docs for k={}", num_queries,
                  num_docs, params.k));
  if (state.finished_queries < 0 || state.finished_queries > num_queries) return refused;
  int64_t next = state.finished_queries;
  for (const SearchSpan& span : state.spans) {
    if (span.first_query != next || span.num_queries < 1 ||
        span.num_queries > num_queries - span.first_query) {
      return refused;
    }
    next = span.end_query();
    if (span.docs_done < 1 || span.docs_done > num_docs) return refused;
    if (static_cast<int64_t>(span.counts.size()) != span.num_queries) return refused;
    if (!CountsFit(span, params.k) || !DocsFit(span, params)) return refused;
  }
  return absl::OkStatus();
}

BatchSaver::BatchSaver(SearchSaver& saver, int64_t first_query, const TopKView& out,
                       int64_t num_docs, SearchSpan from)
    : saver_(saver),
      first_query_(first_query),
      out_(out),
      num_docs_(num_docs),
      from_(std::move(from)) {
  int64_t first = 0;
  for (const int64_t count : from_.counts) {
    first_.push_back(first);
    first += count;
  }
}

std::span<const SavedDoc> BatchSaver::BestOf(int64_t query) const {
  const auto at = static_cast<size_t>(query);
  return {from_.docs.data() + first_[at], static_cast<size_t>(from_.counts[at])};
}

absl::Status BatchSaver::Save(int64_t first_row, SearchSpan span, const SearchReport& report) {
  SearchState state;
  state.finished_queries = first_query_;
  state.report = report;
  if (first_row > 0) {
    state.spans.push_back(SpanOfRows(
        first_query_, {first_row, out_.k, out_.score_dtype, out_.scores, out_.indices}, num_docs_));
  }
  const int64_t end_row = first_row + span.num_queries;
  span.first_query = first_query_ + first_row;
  state.spans.push_back(std::move(span));
  AppendSpansFrom(saver_.start(), first_query_ + end_row, state);
  return saver_.Save(state);
}

void AppendSpansFrom(const SearchState& from, int64_t first_query, SearchState& to) {
  for (const SearchSpan& span : from.spans) {
    if (span.end_query() <= first_query) continue;
    to.spans.push_back(
        span.Part(std::max<int64_t>(0, first_query - span.first_query), span.num_queries));
  }
}

SearchSpan SpanOfRows(int64_t first_query, const TopKView& out, int64_t num_docs) {
  SearchSpan span;
  span.first_query = first_query;
  span.num_queries = out.num_queries;
  span.docs_done = num_docs;
  span.counts.assign(static_cast<size_t>(out.num_queries), out.k);
  if (out.score_dtype == DType::kFloat64) {
    AppendRows<double>(out, span);
  } else {
    AppendRows<float>(out, span);
  }
  return span;
}

void WriteRows(const SearchSpan& span, const TopKView& out) {
  if (out.score_dtype == DType::kFloat64) {
    WriteRowsAs<double>(span, out);
  } else {
    WriteRowsAs<float>(span, out);
  }
}

}  // namespace tiny_knn
