// What every engine is: searches one batch of queries against all docs. Validation, batching and
// the report stand here once.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/row_source.h"
#include "core/search/planner.h"
#include "core/search/search.h"
#include "core/search/search_state.h"

namespace tiny_knn {

// Docs as one engine prepared them for one metric and compute dtype, kept between searches so that
// they need not be read and converted again. The first search it is given to fills it, the later
// ones use it. Whoever keeps it has to make sure that the file is still the same (device, inode,
// size, mtime, ctime), and gives it only to searches of the same file, metric and compute dtype by
// the engine that made it. Thread-compatible.
class WarmDocs {
 public:
  virtual ~WarmDocs() = default;
  // Whether a search has filled it. One that fails or is cancelled leaves it unfilled and empty.
  virtual bool filled() const = 0;
  // Bytes of the host's memory it takes once it is filled.
  virtual int64_t bytes() const = 0;
};

// Thread-compatible: one search at a time per engine.
class Engine {
 public:
  virtual ~Engine() = default;

  // The exact top k docs of every query, handed to `sink` batch by batch. `plan` comes from
  // PlanSearch for this problem. `progress` may be null.
  // `warm_docs` may be null; it never changes what is found or reported, the work it takes aside.
  // `saver` may be null. Else the search goes on where it says, hands out no row of the queries
  // that are finished there, and tells it from time to time how far it is; the report is that of
  // the whole search. Not together with warm docs.
  // Errors: InvalidArgument (k, dims, dtypes; see ValidateSearch; a state that is none of this
  // search), Cancelled, DataLoss (a file changed while it was read), ResourceExhausted, Internal
  // (warm docs of other docs, metric or dtype, or of another engine, or with a saver), or what the
  // sink or the saver returned. Nothing is handed out twice.
  absl::StatusOr<SearchReport> Search(RowSource& queries, RowSource& docs,
                                      const SearchParams& params, const SearchPlan& plan,
                                      Progress* progress, TopKSink& sink,
                                      WarmDocs* warm_docs = nullptr, SearchSaver* saver = nullptr);

  // Room for the docs of that shape, not filled and not yet allocated, or null where this engine
  // keeps none of them: docs that do not fit one chunk of the plan, for one.
  virtual std::unique_ptr<WarmDocs> MakeWarmDocs(const ProblemShape& shape,
                                                 const SearchPlan& plan) const;

  // "cpu" or "cuda": what the result file records.
  virtual std::string_view device() const = 0;

  // A person's table of how it would search, several lines, as DescribePlan's (planner.h), which it
  // is if nothing else is said. Errors: the search would fail for them, too.
  virtual absl::StatusOr<std::string> Describe(const ProblemShape& shape,
                                               const SearchPlan& plan) const;

 private:
  absl::StatusOr<SearchReport> SearchInBatches(RowSource& queries, RowSource& docs,
                                               const SearchParams& params, const SearchPlan& plan,
                                               Progress& progress, TopKSink& sink,
                                               SearchSaver* saver);

  BatchSaver* batch_saver_ = nullptr;  // of the batch that is under way

 protected:
  // Of the batch that is being searched; null: nothing is to be saved. SearchBatch has to begin
  // behind its docs_done(), with its best docs, and saves when it is due, at the borders between
  // chunks. An engine that does neither searches from the beginning, which is right as well as long
  // as the report of a state that it never saved is empty.
  BatchSaver* batch_saver() const { return batch_saver_; }

  // Around the batches of a search that was given `warm_docs`, which outlive both calls. The first
  // says that the batches up to EndWarmSearch may fill and use them; Internal where they are not
  // this engine's, or not of these docs, metric and compute dtype. The second is called after every
  // start that went well: what was filled in between may stay only if `complete`. An engine whose
  // MakeWarmDocs returns null needs neither.
  virtual absl::Status StartWarmSearch(WarmDocs& warm_docs, const RowSource& docs,
                                       const SearchParams& params, const SearchPlan& plan);
  virtual void EndWarmSearch(bool complete);

  // One batch: queries [first, first + count) of `queries`, one pass over `docs`. Arguments are
  // valid. Fills `out`, where indices count from params.first_doc, and adds to `report` (doc counts
  // only when `first_query` is 0, so that a later pass does not count them again). Reports progress
  // through `progress`, never null.
  virtual absl::Status SearchBatch(RowSource& queries, int64_t first_query, int64_t num_queries,
                                   RowSource& docs, const SearchParams& params,
                                   const SearchPlan& plan, Progress& progress, const TopKView& out,
                                   SearchReport& report) = 0;

  // The same by another engine, for one that leaves some searches to it.
  absl::Status SearchBatchOn(Engine& other, RowSource& queries, int64_t first_query,
                             int64_t num_queries, RowSource& docs, const SearchParams& params,
                             const SearchPlan& plan, Progress& progress, const TopKView& out,
                             SearchReport& report) {
    other.batch_saver_ = batch_saver_;
    const absl::Status searched = other.SearchBatch(queries, first_query, num_queries, docs, params,
                                                    plan, progress, out, report);
    other.batch_saver_ = nullptr;
    return searched;
  }
};

// Every rule about arguments, in one place: dims agree and are at least 1, 1 <= k <= D (D - 1 with
// exclude_self, unless all docs come after the last query's own), both files may be converted to
// the compute dtype. Messages name the file and say what would work: "k=11 exceeds the number of
// docs D=10; ...".
absl::Status ValidateSearch(const RowSource& queries, const RowSource& docs,
                            const SearchParams& params);

}  // namespace tiny_knn
