// How far a search is, between two chunks of docs: all that another process needs to go on from
// there and to end with the same results and counts. Plain data; who keeps it, and where, is not
// said here.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "core/search/search.h"

namespace tiny_knn {

// One doc among the best of a query.
struct SavedDoc {
  uint64_t key = 0;   // KeyOfScore (core/search/ranking.h) of the working type's score
  int64_t index = 0;  // counts from SearchParams::first_doc
  bool operator==(const SavedDoc&) const = default;
};

// Queries [first_query, first_query + num_queries), of which each was compared with the first
// `docs_done` docs, at least one, and with no others. Of all docs: what is saved is final.
struct SearchSpan {
  int64_t first_query = 0;
  int64_t num_queries = 0;
  int64_t docs_done = 0;
  // [num_queries] docs of each query, at most k + 1: the k best of those it was compared with, all
  // where there are fewer, and one more if that may matter.
  std::vector<int64_t> counts;
  std::vector<SavedDoc> docs;  // of one query after the other, each in the order of results

  int64_t end_query() const { return first_query + num_queries; }
  // Those of the span's queries [begin, end), counted from its first. REQUIRES: within it.
  SearchSpan Part(int64_t begin, int64_t end) const;
};

struct SearchState {
  // Rows of queries [0, finished_queries) were handed to the sink.
  int64_t finished_queries = 0;
  // Behind them, each next to the other; the queries behind those were compared with no docs.
  std::vector<SearchSpan> spans;
  // What was noticed in all that. The rows of queries in spans that are not compared with all docs
  // yet are not counted: they are when they are read again.
  SearchReport report;
};

// InvalidArgument, in one line without a name, where that is no state of a search of
// `num_queries` queries and `num_docs` docs with these parameters. Safe on any state.
absl::Status CheckState(const SearchState& state, int64_t num_queries, int64_t num_docs,
                        const SearchParams& params);

// Keeps the state of a search that is under way. Called from the thread that searches.
class SearchSaver {
 public:
  virtual ~SearchSaver() = default;
  // Where the search goes on; passes CheckState. Does not change.
  virtual const SearchState& start() const = 0;
  // Whether a state should be saved now. Asked at every border between chunks and after every
  // batch, so it must be cheap.
  virtual bool Due() = 0;
  // An error ends the search with that error.
  virtual absl::Status Save(const SearchState& state) = 0;
};

// What an engine sees of a saver while it searches one batch: where its queries stand, and whom to
// tell how far they are. Engine makes one for each batch.
class BatchSaver {
 public:
  // The batch is of queries [first_query, first_query + out.num_queries); `out` has its results.
  // `from`: where these queries stand; without queries: at the beginning. The saver outlives this.
  BatchSaver(SearchSaver& saver, int64_t first_query, const TopKView& out, int64_t num_docs,
             SearchSpan from);

  // The batch's queries are done with docs [0, docs_done).
  int64_t docs_done() const { return from_.docs_done; }
  // The best of query `query` of the batch among those, in order. REQUIRES: docs_done() > 0.
  std::span<const SavedDoc> BestOf(int64_t query) const;

  bool Due() { return saver_.Due(); }
  // Queries [first_row, first_row + span.num_queries) of the batch stand as `span` says, whose
  // first_query is filled in here; those before them in the batch have their results in `out`.
  // `report`: as of SearchState, of the whole search.
  absl::Status Save(int64_t first_row, SearchSpan span, const SearchReport& report);

 private:
  SearchSaver& saver_;
  const int64_t first_query_;
  const TopKView out_;
  const int64_t num_docs_;
  const SearchSpan from_;
  std::vector<int64_t> first_;  // in from_.docs, of each query
};

// Appends to `to` what `from` says of the queries from `first_query` on.
void AppendSpansFrom(const SearchState& from, int64_t first_query, SearchState& to);

// The rows of `out`, which are final, as a span from `first_query` on.
SearchSpan SpanOfRows(int64_t first_query, const TopKView& out, int64_t num_docs);

// The results that a span with all docs done has, to `out` [num_queries, k]. REQUIRES: each query
// has at least k docs.
void WriteRows(const SearchSpan& span, const TopKView& out);

}  // namespace tiny_knn
