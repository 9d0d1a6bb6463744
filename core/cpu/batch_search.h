// One batch of queries against all docs: screen, select, rescore. The CPU engine's inner loop.
//
//   for each chunk of docs resident in memory
//     for each block of the chunk that fits the shared cache
//       Prepare   convert docs, norms and bounds             threads share the block's docs
//                 (not where docs that were kept warm are prepared already)
//       Screen    GEMM tiles, keep what may reach the top k  threads own queries, or a split of
//       docs
//       (few queries: both at once, each thread a part of the block's docs, read once)
//     Rescore     survivors only, correctly rounded; merge   threads own queries
//
// Where the plan asks for it, thresholds are guessed from a sample of the first chunk before it is
// screened.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "core/cpu/block_rows.h"
#include "core/cpu/candidates.h"
#include "core/cpu/chunk_rows.h"
#include "core/cpu/cpu_warm_docs.h"
#include "core/cpu/index_range.h"
#include "core/cpu/rescore.h"
#include "core/cpu/screen.h"
#include "core/cpu/thread_pool.h"
#include "core/io/row_source.h"
#include "core/matrix/aligned_vector.h"
#include "core/search/planner.h"
#include "core/search/search.h"
#include "core/search/search_state.h"

namespace tiny_knn {

// Where a search of warm docs wants no more than one row in so many, times k and queries, it
// fetches them: below, the pages of a mapping would be touched for a few rows each.
inline constexpr int64_t kDocsPerRowWanted = 32;

// Thread-compatible; used for one batch. `T` is the working type.
template <typename T>
class BatchSearch {
 public:
  // All references outlive this. Queries are rows [first_query, first_query + num_queries).
  // `warm`: null, or docs that fit the search: filled by it where they are being filled (the plan
  // has one chunk then), else prepared and used by it.
  BatchSearch(ThreadPool& pool, const SearchParams& params, const SearchPlan& plan,
              int64_t first_query, int64_t num_queries, int64_t dim, CpuWarmDocs* warm,
              Progress& progress);

  absl::Status LoadQueries(RowSource& queries, SearchReport& report);
  // From the docs on that `saver` says the queries are done with, and telling it how far they are;
  // null: from the first one. `before`: the search's report before these queries were loaded.
  absl::Status SearchDocs(RowSource& docs, const SearchReport& before, BatchSaver* saver,
                          SearchReport& report);
  void Finish(const TopKView& out, SearchReport& report);

 private:
  // The best docs of another process, and the thresholds that they make.
  void RestoreBest(const BatchSaver& saver);
  // The state between two chunks: `docs_done` docs are rescored.
  absl::Status SaveBest(int64_t docs_done, const SearchReport& before, BatchSaver& saver) const;
  // Adds what was noticed so far, but for what Finish adds.
  void AddCounts(SearchReport& report) const;

  // Docs that a screen with a refiner kept for one query, in their order.
  struct Survivors {
    explicit Survivors(int64_t capacity)
        : doc(std::make_unique_for_overwrite<int32_t[]>(Entries(capacity))),
          lower(std::make_unique_for_overwrite<float[]>(Entries(capacity))) {}
    static size_t Entries(int64_t capacity) {
      return static_cast<size_t>(capacity + kCandidatePadding);
    }
    std::unique_ptr<int32_t[]> doc;  // [capacity + kCandidatePadding]
    std::unique_ptr<float[]> lower;  // the same size; bounds as the screen gives them
    int64_t count = 0;
  };

  // What one thread needs for itself, lines of the cache included.
  struct alignas(kCacheLineBytes) Worker {
    AlignedVector<float> tile;     // [query_tile, doc_tile] scores
    std::vector<uint64_t> groups;  // [query_tile] of them that may hold survivors
    std::vector<float> lowers;
    std::vector<uint32_t> select_scratch;
    std::vector<Survivors> survivors;  // of two queries and a tile, where they do not wait
    std::vector<T> row_scratch;
    AlignedVector<std::byte> fetched_rows;  // a group's, where rows are fetched one by one
    typename CandidateRefiner<T>::Scratch refiner_scratch;
    std::vector<Ranked<T>> found;
    std::vector<Ranked<T>> sort_scratch;
    PrepareCounts counts;
    absl::Status status;
    int64_t rescored = 0;
    int64_t survived = 0;  // refined at once, or taken to wait; not of a sample
    int64_t refined = 0;
    int64_t tied = 0;
  };

  absl::Status SearchChunk(RowSource& docs, int64_t begin, int64_t end);
  absl::Status ScreenChunk(RowSource& docs, int64_t begin);
  // Makes docs [begin, end) the chunk.
  absl::Status OpenChunk(RowSource& docs, int64_t begin, int64_t end);
  // The chunk's rows that the screen wants to see first.
  absl::Status StartScreenChunk(RowSource& docs, const KeptDocs& kept);
  // Whether to fetch each row that is refined or rescored, from docs that are prepared: where this
  // search wants few of them, and a group for each thread is no more than the block that it does
  // not have to fetch.
  bool FetchesEach(const RowSource& docs) const {
    return prepared_ && docs.can_fetch_each() &&
           num_queries_ * params_.k <= docs.rows() / kDocsPerRowWanted &&
           pool_.threads() * kMostRefined <= plan_.doc_block;
  }
  // stored[i]: doc docs[i] as `rows`, where it lies, have it; or a copy, in the worker's memory
  // until the next call. At most kMostRefined docs. False when they could not be read: the worker's
  // status.
  bool FindStoredRows(std::span<const int32_t> docs, const ChunkRows<T>& rows, Worker& worker,
                      const void** stored) const;
  // The first failure of a thread.
  absl::Status StatusOfWorkers() const;
  // Gives a block of the chunk to the screen, prepared.
  absl::Status StartBlock(IndexRange block);
  // The block's rows, which PrepareBlock fetches where that is needed.
  MatrixView RowsOf(IndexRange block);
  // Of the block that starts at `first`, in a chunk or a sample.
  int64_t BlockDocs(int64_t first) const;
  // After codes were given up: rows of floats in the memory of their codes.
  int64_t BlockDocsWithoutCodes() const {
    return (plan_.doc_block + kTileDocs) / int64_t{sizeof(float)};
  }
  // After a block: where codes leave so much to refine that another screen would be faster, goes on
  // with that.
  void JudgeCodes(IndexRange block);
  // Of codes, but for those of a sample.
  int64_t SurvivorsSoFar() const;
  // By how many of that block's pairs survived, and how many so far.
  bool CodesPay(IndexRange block, int64_t new_survivors, int64_t survivors) const;
  // Thresholds from a sample of the chunk.
  void GuessThresholds();
  // False where it could not be prepared, or when cancelled.
  bool ScreenSample();
  // Where docs have to be refined, as if approximate scores were exact, but for queries of which
  // they say nothing.
  void SetSampleBounds();
  // Of those docs of a block, from `first_doc` on, that are among the best of a query.
  void RefineBestOfSample(int64_t first_doc, int worker);
  // Leaves the sample_rank best in a list, and returns the least of them.
  float KeepBestOfSample(CandidateList<T>& list, Worker& worker) const;
  // The score that should be a little less than the query's k-th best; -inf: who knows.
  T GuessFor(int64_t query, Worker& worker);
  std::vector<PrepareCounts> CountsOfWorkers() const;
  // When the chunk is done: sets wrongly_guessed_, and those queries back to where they started.
  void FindWrongGuesses();
  void PrepareBlock(IndexRange block, int worker);
  // Whether docs are scored as they are prepared: by threads that each have docs of their own for
  // all queries.
  bool ScoresInOnePass() const {
    return screen_->scores_in_one_pass() && !prepared_ && !sampling_ && wrongly_guessed_.empty() &&
           plan_.doc_splits == pool_.threads() && num_queries_ <= plan_.query_tile;
  }
  // PrepareBlock and ScreenBlock for a thread's part of the block.
  void ScreenInOnePass(IndexRange block, int worker);
  // Fills the worker's tile with scores of docs `docs` of the block for all queries. `part`: the
  // worker's.
  absl::Status PrepareAndScore(IndexRange docs, IndexRange part, IndexRange block, Worker& worker);
  void ScreenBlock(IndexRange block, int worker);
  void ScreenTile(IndexRange queries, IndexRange docs, int64_t block_begin, int64_t split,
                  Worker& worker);
  // Appends to the query's list which docs, from the chunk's `first_doc` on, whose scores are
  // given, may reach the top k.
  void TakeCandidates(int64_t query, int64_t split, const ScoreRow& scores, int64_t first_doc,
                      Worker& worker);
  // The same where they have to be refined first, in two steps.
  void FindSurvivors(int64_t query, int64_t split, const ScoreRow& scores, int64_t first_doc,
                     Survivors& survivors) const;
  void RefineSurvivors(int64_t query, int64_t split, Survivors& survivors, Worker& worker);
  // Those from `from` on that a threshold raised since rules out.
  void DropSurvivors(int64_t query, int64_t split, int64_t from, Survivors& survivors) const;
  bool IsBelowThreshold(int64_t query, int64_t split, float lower, int32_t doc) const;
  // Refines at most kMostRefined docs, and writes the lower bounds and numbers of those that may
  // reach the threshold, in their order; returns how many, or nothing when rows could not be read:
  // the worker's status. `doc` may be where `docs` are.
  std::optional<int64_t> RefineDocs(int64_t query, float threshold, std::span<const int32_t> docs,
                                    float* lower, int32_t* doc, Worker& worker) const;
  // Refines docs, in their order and at most kMostRefined, and puts those that may reach the top k
  // to where they belong in the list. False when rows could not be read: the worker's status.
  bool RefineGroup(int64_t query, int64_t split, std::span<const int32_t> docs, Worker& worker);
  // Of docs that need not be refined while their block is at hand: survivors wait until there are
  // many, and the best are refined first. Then fewer are refined at all.
  void TakeSurvivors(int64_t query, int64_t split, const ScoreRow& scores, int64_t first_doc,
                     Worker& worker);
  // Makes room.
  void ThinWaiting(int64_t query, int64_t split, Worker& worker);
  // Refines those whose lower bounds are at least `floor`, and drops those below the threshold.
  void RefineWaiting(int64_t query, int64_t split, float floor, Worker& worker);
  // When the chunk ends: all of the query's.
  void RefineAllWaiting(int64_t query, Worker& worker);
  // Of a doc's score, from its lower bound: that plus the width of the interval. Infinite offsets
  // make a NaN, which is kept.
  double UpperBound(float lower, int32_t doc, double error) const {
    const size_t at = static_cast<size_t>(doc);
    return static_cast<double>(lower) +
           (static_cast<double>(bounds_->upper_offset[at]) -
            static_cast<double>(bounds_->lower_offset[at])) +
           2 * error;
  }
  void RescoreChunk(int worker);
  // The steps of RescoreChunk, for a thread's own queries. First the last threshold that the screen
  // can prove; returns the k-th best lower bound, -inf with fewer candidates.
  float ThinForRescoring(int64_t query, Worker& worker);
  // Without dropping any. `with_waiting`: by what waits, too.
  float RaiseThresholds(int64_t query, bool with_waiting, Worker& worker);
  // Then exact scores, window by window of docs, of candidates whose lower bounds are at least
  // their query's floor. False when cancelled, or rows could not be read: scores may be missing.
  bool ScoreCandidates(IndexRange queries, const std::vector<float>& floors, Worker& worker);
  // And the merge of those; of the others, what they leave possible stays.
  void MergeScored(int64_t query, float floor, Worker& worker);

  // Raises the query's threshold by what its candidates prove, drops those below it, and rescores
  // some if that makes too little room.
  void Thin(int64_t query, int64_t split, Worker& worker);
  void RemoveSelf(int64_t query, CandidateList<T>& list) const;
  void RemoveSelf(int64_t query, Survivors& survivors) const;
  void RemoveSelf(int64_t query, float* lower, int32_t* doc, int64_t& size) const;
  void DropBelowThreshold(int64_t query, int64_t split, CandidateList<T>& list) const;
  void RaiseThreshold(int64_t query, int64_t split, float threshold);
  // Rescores the candidates with the k best lower bounds, and the others too if that leaves the
  // list too full.
  void RescoreNow(int64_t query, int64_t split, Worker& worker);
  bool HasRoom(const CandidateList<T>& list) const;
  // Candidates that a list holds before it is thinned.
  int64_t Capacity() const;
  // Fills in the keys of candidates [begin, end) whose lower bounds are at least `floor`. False
  // when cancelled, or rows could not be read: the worker's status.
  bool ScoreFrom(int64_t query, float floor, CandidateList<T>& list, int64_t begin, int64_t end,
                 Worker& worker) const;
  // Moves these to worker.found.
  void TakeScored(float floor, CandidateList<T>& list, Worker& worker) const;

  // Whether survivors wait to be refined: where their rows can be had until the chunk is done.
  bool Waits() const {
    return !waiting_.empty() && !sampling_ && screen_->refiner() != nullptr &&
           (prepared_ || fetched_from_ == nullptr);
  }
  // Where docs are refined: those of the block that is screened.
  const ChunkRows<T>& rows_to_refine() const {
    return block_rows_.has_value() ? *block_rows_ : *chunk_rows_;
  }
  ScreenKind BoundsKind() const {
    return std::is_same_v<T, float> ? plan_.screen : ScreenKind::kFloat32Gemm;
  }
  int64_t ListOf(int64_t query, int64_t split) const { return split * num_queries_ + query; }

  ThreadPool& pool_;
  const SearchParams& params_;
  const SearchPlan& plan_;
  Progress& progress_;
  const int64_t first_query_;
  const int64_t num_queries_;
  const int64_t dim_;
  const int64_t query_stride_;  // dim rounded up to whole cache lines
  const int64_t query_parts_;   // threads that screen different queries

  // Rows of queries, [num_queries, query_stride_], each on a cache line.
  AlignedVector<T> query_values_;
  AlignedVector<double> query_wide_;  // the same in double, unless T is double
  std::vector<PreparedQuery<T>> queries_;
  std::unique_ptr<Screen<T>> screen_;
  CpuWarmDocs* const warm_;                // null: nothing is kept
  const bool prepared_;                    // all docs are in warm_
  DocBoundArrays own_bounds_;              // empty where warm_ has them
  CandidateArena<T> candidates_;           // list ListOf(query, split)
  std::vector<Survivors> waiting_;         // the same index; empty where none ever wait
  std::vector<QueryBounds> query_bounds_;  // the same index; each thread writes its own
  std::vector<ExactTop<T>> exact_;
  // A query that several threads screen may be rescored by two at once; stripes of locks.
  std::array<std::mutex, 64> exact_mutexes_;
  std::vector<Worker> workers_;

  // The docs that are screened: a chunk, or while sampling_ a sample of the first one.
  MatrixView chunk_;         // its first piece where fetched_from_ has it in several
  int64_t chunk_begin_ = 0;  // row of the chunk's first doc
  std::unique_ptr<ChunkRows<T>> chunk_rows_;
  RowSource* fetched_from_ = nullptr;       // null where chunk_ can be read as it is
  int64_t fetch_step_ = 1;                  // of chunk_'s docs in the source; more for a sample
  BlockRows fetched_;                       // the block, where it is fetched
  std::optional<ChunkRows<T>> block_rows_;  // the same; else nothing
  RowSource* each_from_ = nullptr;          // where rows are fetched one by one; else null
  DocBoundArrays* bounds_;
  int64_t rank_;  // of the lower bound that makes a threshold: k, or that of the sample
  bool sampling_ = false;
  std::vector<T> guesses_;  // the score that the threshold was made of; -inf: it was not guessed
  // Queries that are screened once more, alone; else empty.
  std::vector<int64_t> wrongly_guessed_;
  int64_t repeated_queries_ = 0;
  int64_t judged_survivors_ = 0;  // SurvivorsSoFar when JudgeCodes looked last
};

}  // namespace tiny_knn
