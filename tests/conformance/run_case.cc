#include "tests/conformance/run_case.h"

#include <fmt/format.h>
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <set>
#include <utility>
#include <vector>

#include "core/io/row_source.h"
#include "core/search/reference_search.h"
#include "core/search/search_state.h"
#include "tests/conformance/generator.h"

namespace tiny_knn::conformance {
namespace {

// Hands out exact-size copies that are destroyed as early as RowSource allows, so that a view kept
// too long reads freed memory (which the sanitizers see) or bytes that are NaN in every format, and
// so does a row of a started range that was not fetched. Started ranges are in pieces.
class ShortLivedRowSource : public RowSource {
 public:
  ShortLivedRowSource(std::string name, const MatrixView& matrix)
      : RowSource(std::move(name), matrix.dtype, matrix.rows, matrix.dim), matrix_(matrix) {}
  ~ShortLivedRowSource() override { Release(); }

  absl::StatusOr<MatrixView> Rows(int64_t begin, int64_t end) override {
    const MatrixView view = Start(begin, end, std::max<int64_t>(1, end - begin)).front();
    for (int64_t i = begin; i < end; ++i) std::memcpy(RowOf(i), matrix_.Row(i), row_bytes());
    return view;
  }

  // All bits set, until a row is fetched.
  absl::StatusOr<std::vector<MatrixView>> StartRows(int64_t begin, int64_t end) override {
    return Start(begin, end, kPieceRows);
  }

  bool needs_fetch() const override { return true; }

  absl::Status Fetch(const RowSelection& rows, std::byte* out) override {
    const int64_t last = rows.begin + (rows.count - 1) * rows.step;
    if (copies_.empty() || rows.count < 1 || rows.begin < begin_ || last >= end_) {
      return absl::InternalError(
          fmt::format("rows {} to {} fetched of {} to {}", rows.begin, last, begin_, end_));
    }
    for (int64_t i = 0; i < rows.count; ++i) {
      const int64_t row = rows.begin + i * rows.step;
      std::memcpy(out + i * static_cast<int64_t>(row_bytes()), matrix_.Row(row), row_bytes());
      if (rows.step == 1) std::memcpy(RowOf(row), matrix_.Row(row), row_bytes());
    }
    return absl::OkStatus();
  }

  void Release() override {
    for (std::vector<std::byte>& copy : copies_) std::memset(copy.data(), 0xFF, copy.size());
    copies_.clear();
  }

  absl::Status CheckUnchanged() override { return absl::OkStatus(); }
  int64_t buffer_bytes_per_row() const override { return dim() * ItemSize(dtype()); }

 private:
  static constexpr int64_t kPieceRows = 37;

  std::vector<MatrixView> Start(int64_t begin, int64_t end, int64_t piece_rows) {
    Release();
    begin_ = begin;
    end_ = end;
    piece_rows_ = piece_rows;
    std::vector<MatrixView> views;
    do {
      const int64_t count = std::min(piece_rows, end - begin);
      copies_.emplace_back(static_cast<size_t>(count) * row_bytes(), std::byte{0xFF});
      views.push_back(
          {copies_.back().data(), dtype(), count, dim(), static_cast<int64_t>(row_bytes())});
      begin += count;
    } while (begin < end);
    return views;
  }

  size_t row_bytes() const { return static_cast<size_t>(dim() * ItemSize(dtype())); }
  std::byte* RowOf(int64_t row) {
    const int64_t place = row - begin_;
    return copies_[static_cast<size_t>(place / piece_rows_)].data() +
           place % piece_rows_ * static_cast<int64_t>(row_bytes());
  }

  MatrixView matrix_;
  std::vector<std::vector<std::byte>> copies_;  // rows [begin_, end_), piece_rows_ in each
  int64_t piece_rows_ = 1;
  int64_t begin_ = 0;
  int64_t end_ = 0;
};

std::unique_ptr<RowSource> MakeSource(std::string name, const MatrixView& view, Storage storage) {
  if (storage == Storage::kShortLived) {
    return std::make_unique<ShortLivedRowSource>(std::move(name), view);
  }
  return MakeMemoryRowSource(std::move(name), view);
}

// Results as bits. Starts as what no search returns, so that rows never written are seen.
struct Results {
  Results(const Case& c, DType score_dtype)
      : num_queries(c.num_queries),
        k(c.k),
        dtype(score_dtype),
        indices(static_cast<size_t>(num_queries * k), -7),
        scores(static_cast<size_t>(num_queries * k * ItemSize(score_dtype)), std::byte{0xAB}) {}

  TopKView View() { return {num_queries, k, dtype, scores.data(), indices.data()}; }

  uint64_t ScoreBits(int64_t i) const {
    uint64_t bits = 0;
    std::memcpy(&bits, scores.data() + i * ItemSize(dtype), static_cast<size_t>(ItemSize(dtype)));
    return bits;
  }

  std::string Describe(int64_t i) const {
    double value = 0;
    if (dtype == DType::kFloat64) {
      std::memcpy(&value, scores.data() + i * 8, 8);
    } else {
      float narrow = 0;
      std::memcpy(&narrow, scores.data() + i * 4, 4);
      value = narrow;
    }
    return fmt::format("doc {} score {} (bits {:#x})", indices[i], value, ScoreBits(i));
  }

  int64_t num_queries;
  int64_t k;
  DType dtype;
  std::vector<int64_t> indices;
  std::vector<std::byte> scores;
};

// Copies what the engine hands out, and checks that queries come once each and in order.
class CollectingSink : public TopKSink {
 public:
  // Of results whose first `taken` queries were handed out before.
  explicit CollectingSink(Results& results, int64_t taken = 0) : results_(results), next_(taken) {}

  absl::Status Take(int64_t first_query, const TopKView& part) override {
    if (first_query != next_ || part.k != results_.k || part.score_dtype != results_.dtype ||
        next_ + part.num_queries > results_.num_queries) {
      return absl::InternalError(
          fmt::format("rows of query {} handed out after {} queries", first_query, next_));
    }
    const int64_t begin = first_query * part.k;
    const int64_t count = part.num_queries * part.k;
    const int64_t item = ItemSize(part.score_dtype);
    std::memcpy(results_.indices.data() + begin, part.indices, static_cast<size_t>(count) * 8);
    std::memcpy(results_.scores.data() + begin * item, part.scores,
                static_cast<size_t>(count * item));
    next_ += part.num_queries;
    return absl::OkStatus();
  }

  int64_t taken() const { return next_; }

 private:
  Results& results_;
  int64_t next_;
};

// Goes on from a state, and remembers every one that it is given. Is due at each of the first
// borders, which is where a save may disturb the next one, and then at every `every`-th.
class RememberingSaver : public SearchSaver {
 public:
  RememberingSaver(SearchState start, int64_t every) : start_(std::move(start)), every_(every) {}
  const SearchState& start() const override { return start_; }
  bool Due() override {
    ++asked_;
    return asked_ <= kFirst || asked_ % every_ == 0;
  }
  absl::Status Save(const SearchState& state) override {
    states.push_back(state);
    return absl::OkStatus();
  }
  std::vector<SearchState> states;

 private:
  static constexpr int64_t kFirst = 3;
  const SearchState start_;
  const int64_t every_;
  int64_t asked_ = 0;
};

std::string CompareReports(const SearchReport& expected, const SearchReport& found) {
  const std::pair<std::string_view, std::pair<int64_t, int64_t>> counts[] = {
      {"nonfinite_query_rows", {expected.nonfinite_query_rows, found.nonfinite_query_rows}},
      {"nonfinite_doc_rows", {expected.nonfinite_doc_rows, found.nonfinite_doc_rows}},
      {"infs_made_in_queries", {expected.infs_made_in_queries, found.infs_made_in_queries}},
      {"infs_made_in_docs", {expected.infs_made_in_docs, found.infs_made_in_docs}},
      {"queries_with_tie_at_k", {expected.queries_with_tie_at_k, found.queries_with_tie_at_k}},
  };
  std::string text;
  for (const auto& [name, values] : counts) {
    if (values.first != values.second) {
      text +=
          fmt::format("report: {} is {}, the oracle says {}\n", name, values.second, values.first);
    }
  }
  return text;
}

std::string CompareResults(const Results& expected, const Results& found) {
  for (int64_t query = 0; query < expected.num_queries; ++query) {
    for (int64_t rank = 0; rank < expected.k; ++rank) {
      const int64_t i = query * expected.k + rank;
      if (expected.indices[i] != found.indices[i] || expected.ScoreBits(i) != found.ScoreBits(i)) {
        return fmt::format("query {}, rank {}:\n  oracle {}\n  engine {}\n", query, rank,
                           expected.Describe(i), found.Describe(i));
      }
    }
  }
  return "";
}

// What the oracle says.
struct Expected {
  const Results& results;
  const SearchReport& report;
};

// What an engine's Search is given beside the parameters.
struct SearchInput {
  RowSource& queries;
  RowSource& docs;
  const SearchPlan& plan;
  WarmDocs* warm;                         // may be null
  SearchSaver* saver = nullptr;           // may be null
  const Results* found_before = nullptr;  // where the saver says that queries are finished
};

// One search, and what it does differently from the oracle.
std::string SearchAndCompare(Engine& engine, const Case& c, const SearchInput& input,
                             const RunOptions& options, const Expected& expected) {
  const SearchParams params{c.k, c.metric, c.compute_dtype, c.exclude_self, c.first_doc};
  Results found(c, expected.results.dtype);
  int64_t taken = 0;
  if (input.found_before != nullptr) {
    found = *input.found_before;
    taken = input.saver->start().finished_queries;
  }
  CollectingSink sink(found, taken);
  const uint32_t mxcsr_before = _mm_getcsr();
  if (options.mxcsr.has_value()) _mm_setcsr(*options.mxcsr);
  const absl::StatusOr<SearchReport> report = engine.Search(
      input.queries, input.docs, params, input.plan, nullptr, sink, input.warm, input.saver);
  constexpr uint32_t kStickyFlags = 0x3F;
  const uint32_t mxcsr_after = _mm_getcsr();
  _mm_setcsr(mxcsr_before);
  if (((mxcsr_after ^ options.mxcsr.value_or(mxcsr_before)) & ~kStickyFlags) != 0) {
    return fmt::format("the engine left MXCSR at {:#x}\n", mxcsr_after);
  }
  if (!report.ok()) return "the engine failed: " + report.status().ToString() + "\n";
  if (sink.taken() != c.num_queries) {
    return fmt::format("{} of {} queries handed out\n", sink.taken(), c.num_queries);
  }
  return CompareResults(expected.results, found) + CompareReports(expected.report, *report);
}

// The results with only the queries that were finished then.
Results Finished(const Case& c, const Results& all, int64_t queries) {
  Results finished(c, all.dtype);
  const int64_t count = queries * c.k;
  const int64_t item = ItemSize(all.dtype);
  std::copy(all.indices.begin(), all.indices.begin() + count, finished.indices.begin());
  std::copy(all.scores.begin(), all.scores.begin() + count * item, finished.scores.begin());
  return finished;
}

// Searches, saving as often as RememberingSaver is due, and goes on from the first, the middle and
// the last of what was saved: with the same plan, and with another that has smaller batches and
// larger chunks.
std::string SearchFromStates(Engine& engine, const Case& c, int64_t save_every, SearchInput input,
                             const RunOptions& options, const Expected& expected) {
  RememberingSaver whole({}, save_every);
  input.saver = &whole;
  const std::string difference = SearchAndCompare(engine, c, input, options, expected);
  if (!difference.empty()) return "while saving: " + difference;
  SearchPlan other = input.plan;
  other.query_batch = std::max<int64_t>(1, other.query_batch / 2);
  other.doc_chunk = std::min(other.doc_chunk * 3, std::max<int64_t>(c.num_docs, 1));
  const size_t saved = whole.states.size();
  for (const size_t at : std::set<size_t>{0, saved / 2, saved - std::min<size_t>(saved, 1)}) {
    if (at >= saved) continue;
    for (const SearchPlan* const plan : {&input.plan, &std::as_const(other)}) {
      RememberingSaver saver(whole.states[at], save_every);
      const Results before = Finished(c, expected.results, whole.states[at].finished_queries);
      const SearchInput from{input.queries, input.docs, *plan, nullptr, &saver, &before};
      const std::string later = SearchAndCompare(engine, c, from, options, expected);
      if (!later.empty()) return fmt::format("from state {} of {}: {}", at, saved, later);
      // What goes on can be gone on from.
      if (saver.states.empty()) continue;
      RememberingSaver again(saver.states.back(), save_every);
      const Results then = Finished(c, expected.results, again.start().finished_queries);
      const std::string last = SearchAndCompare(
          engine, c, {input.queries, input.docs, *plan, nullptr, &again, &then}, options, expected);
      if (!last.empty()) return fmt::format("twice from state {} of {}: {}", at, saved, last);
    }
  }
  return "";
}

// The case's plan for the screen that is to be tested. There are no codes of doubles.
SearchPlan PlanFor(const EngineUnderTest& engine, const Case& c) {
  SearchPlan plan = PlanOfCase(c);
  if (engine.guesses && plan.candidate_capacity >= 2) {
    plan.sample_docs = (std::min(plan.doc_chunk, c.num_docs) + 1) / 2;
    plan.sample_rank = std::min((c.k + 1) / 2, plan.candidate_capacity / 2);
  }
  if (WorkingDType(c.compute_dtype) != DType::kFloat32) return plan;
  plan.screen = engine.screen;
  if (HasCodes(plan.screen)) {
    constexpr int64_t kUnit = 64;  // SearchPlan::doc_tile
    for (int64_t* const docs : {&plan.doc_block, &plan.doc_tile}) {
      *docs = (*docs + kUnit - 1) / kUnit * kUnit;
    }
    // So few that they fill up again and again; or survivors are refined at once.
    plan.waiting_capacity = engine.survivors_wait ? c.k + c.k / 2 + 3 : 0;
  }
  return plan;
}

}  // namespace

std::string RunCase(const Case& c, const EngineUnderTest& engine_under_test,
                    const RunOptions& options) {
  Problem problem{.num_queries = c.num_queries,
                  .num_docs = c.num_docs,
                  .dim = c.dim,
                  .query_dtype = c.query_dtype,
                  .doc_dtype = c.doc_dtype,
                  .compute_dtype = c.compute_dtype};
  problem.queries.assign(static_cast<size_t>(c.num_queries * c.dim), 0);
  problem.docs.assign(static_cast<size_t>(c.num_docs * c.dim), 0);
  Random random(c.seed);
  FindScenario(c.scenario).fill(problem, random);

  const bool strided = c.storage == Storage::kStrided;
  const StoredMatrix query_rows =
      Store(problem.queries, c.query_dtype, c.num_queries, c.dim, strided ? 5 : 0, strided ? 1 : 0);
  const StoredMatrix doc_rows =
      Store(problem.docs, c.doc_dtype, c.num_docs, c.dim, strided ? 3 : 0, strided ? 1 : 0);
  const SearchParams params{c.k, c.metric, c.compute_dtype, c.exclude_self, c.first_doc};

  const DType score_dtype = WorkingDType(c.compute_dtype);
  Results expected(c, score_dtype);
  SearchReport expected_report;
  {
    const auto queries = MakeMemoryRowSource("queries", query_rows.view);
    const auto docs = MakeMemoryRowSource("docs", doc_rows.view);
    std::vector<int64_t> all(static_cast<size_t>(c.num_queries));
    std::iota(all.begin(), all.end(), 0);
    const absl::Status status =
        ReferenceSearch(*queries, all, *docs, params, expected.View(), expected_report);
    if (!status.ok()) return "the oracle failed: " + status.ToString() + "\n";
  }

  const Expected answer{expected, expected_report};
  const auto queries = MakeSource("queries", query_rows.view, c.storage);
  const auto docs = MakeSource("docs", doc_rows.view, c.storage);
  const std::unique_ptr<Engine> engine = engine_under_test.make();
  const SearchPlan plan = PlanFor(engine_under_test, c);
  const auto search = [&](const SearchPlan& with_plan, WarmDocs* warm) {
    return SearchAndCompare(*engine, c, {*queries, *docs, with_plan, warm}, options, answer);
  };
  if (engine_under_test.save_every > 0) {
    return SearchFromStates(*engine, c, engine_under_test.save_every,
                            {*queries, *docs, plan, nullptr}, options, answer);
  }
  if (!engine_under_test.warm) return search(plan, nullptr);

  // Docs are filled in one chunk, then used with the plan of the case, whatever it is.
  SearchPlan one_chunk = plan;
  one_chunk.doc_chunk = c.num_docs;
  one_chunk.num_chunks = 1;
  ProblemShape shape = ShapeOfCase(c);
  shape.doc_buffer_bytes_per_row = docs->buffer_bytes_per_row();
  const std::unique_ptr<WarmDocs> warm = engine->MakeWarmDocs(shape, one_chunk);
  if (warm == nullptr) {
    // An engine may need such docs once more when it scores, and not have them.
    if (c.storage == Storage::kShortLived) return search(one_chunk, nullptr);
    return "the engine keeps none of these docs warm\n";
  }
  const std::string difference = search(one_chunk, warm.get());
  if (!difference.empty()) return "while filling: " + difference;
  if (!warm->filled()) return "the search has not filled the warm docs\n";
  const std::string warm_difference = search(plan, warm.get());
  if (!warm_difference.empty()) return "with warm docs: " + warm_difference;
  return warm->filled() ? "" : "the second search has emptied the warm docs\n";
}

}  // namespace tiny_knn::conformance
