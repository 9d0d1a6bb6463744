#include "tests/conformance/conformance_cases.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <set>

#include "core/matrix/convert.h"
#include "tests/conformance/generator.h"

namespace tiny_knn::conformance {
namespace {

constexpr std::array<Metric, 3> kMetrics = {Metric::kInnerProduct, Metric::kCosine, Metric::kL2};

constexpr std::array<DType, 4> kFloats = {DType::kFloat32, DType::kFloat16, DType::kBFloat16,
                                          DType::kFloat64};
constexpr std::array<DType, 5> kIntegers = {DType::kInt8, DType::kUInt8, DType::kInt16,
                                            DType::kInt32, DType::kInt64};
constexpr std::array<DType, 10> kFileDTypes = {
    DType::kBool,  DType::kInt8,    DType::kUInt8,    DType::kInt16,   DType::kInt32,
    DType::kInt64, DType::kFloat16, DType::kBFloat16, DType::kFloat32, DType::kFloat64};

constexpr PlanOverrides kPlanned{};
constexpr PlanOverrides kTiniest{.name = "tiniest",
                                 .query_batch = 1,
                                 .doc_chunk = 1,
                                 .doc_block = 1,
                                 .query_tile = 1,
                                 .doc_tile = 1,
                                 .candidate_slack = -1000};
constexpr PlanOverrides kTiny{.name = "tiny",
                              .threads = 2,
                              .query_batch = 2,
                              .doc_chunk = 15,
                              .doc_block = 5,
                              .query_tile = 2,
                              .doc_tile = 3,
                              .candidate_slack = 1};
constexpr PlanOverrides kChunks{
    .name = "chunks", .doc_chunk = 32, .doc_block = 16, .doc_tile = 16, .candidate_slack = 7};
constexpr PlanOverrides kManyThreads{
    .name = "threads", .threads = 3, .doc_chunk = 60, .doc_block = 20, .query_tile = 1};
constexpr PlanOverrides kSplits{.name = "splits",
                                .threads = 3,
                                .doc_block = 48,
                                .doc_splits = 3,
                                .doc_tile = 7,
                                .candidate_slack = 2};
constexpr PlanOverrides kSmallBuffer{.name = "small_buffer", .doc_tile = 8, .candidate_slack = 0};
constexpr std::array<PlanOverrides, 7> kPlans = {kPlanned,     kTiny,   kChunks, kManyThreads,
                                                 kSmallBuffer, kSplits, kTiniest};

// FNV-1a. A case keeps its values when others join the list.
uint64_t HashOf(std::string_view text) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (const char letter : text) {
    hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001B3u;
  }
  return hash;
}

struct Shape {
  int64_t num_queries, num_docs, dim, k;
};

// Collects cases and gives them names.
class ListBuilder {
 public:
  // The name's last part is of the shape; `c.name` holds what is said before it.
  void Add(Case c, const Shape& shape) {
    c.num_queries = shape.num_queries;
    c.num_docs = shape.num_docs;
    c.dim = shape.dim;
    c.k = std::min(shape.k, c.exclude_self ? shape.num_docs - 1 : shape.num_docs);
    const std::string dtypes =
        c.query_dtype == c.doc_dtype && c.doc_dtype == c.compute_dtype
            ? std::string(DTypeName(c.compute_dtype))
            : fmt::format("{}_by_{}_in_{}", DTypeName(c.query_dtype), DTypeName(c.doc_dtype),
                          DTypeName(c.compute_dtype));
    c.name += fmt::format("_{}_{}_q{}_d{}_dim{}_k{}_{}", MetricName(c.metric), dtypes,
                          c.num_queries, c.num_docs, c.dim, c.k, c.plan.name);
    c.seed = HashOf(c.name);
    if (!names_.insert(c.name).second) {
      std::fprintf(stderr, "two conformance cases are called %s\n", c.name.c_str());
      std::abort();
    }
    cases_.push_back(std::move(c));
  }

  std::vector<Case> Take() { return std::move(cases_); }

  // A number that differs from case to case, to vary what is not the subject.
  size_t turn() const { return cases_.size(); }

 private:
  std::vector<Case> cases_;
  std::set<std::string> names_;
};

Case Make(std::string_view scenario, Metric metric, DType dtype, const PlanOverrides& plan) {
  Case c;
  c.name = scenario;
  c.scenario = scenario;
  c.metric = metric;
  c.query_dtype = c.doc_dtype = c.compute_dtype = dtype;
  c.plan = plan;
  return c;
}

// Every scenario in every metric and dtype; shapes and plans take turns.
void AddScenarios(ListBuilder& list) {
  constexpr std::array<Shape, 7> kShapes = {{{3, 65, 17, 5},
                                             {2, 130, 33, 10},
                                             {5, 63, 64, 62},
                                             {1, 257, 15, 1},
                                             {7, 64, 8, 64},
                                             {4, 200, 100, 3},
                                             {3, 129, 48, 2}}};
  const auto add = [&](const Scenario& scenario, DType dtype) {
    for (const Metric metric : kMetrics) {
      const size_t turn = list.turn();
      list.Add(Make(scenario.name, metric, dtype, kPlans[(turn / 3) % kPlans.size()]),
               kShapes[(turn + turn / 49) % kShapes.size()]);
    }
  };
  for (const Scenario& scenario : FloatScenarios()) {
    for (const DType dtype : kFloats) add(scenario, dtype);
  }
  for (const Scenario& scenario : IntegerScenarios()) {
    for (const DType dtype : kIntegers) add(scenario, dtype);
  }
}

// Few of many docs to keep: what a wrong bound, threshold or order loses.
void AddFineSelections(ListBuilder& list) {
  constexpr std::array<PlanOverrides, 3> kTurns = {kPlanned, kManyThreads, kSmallBuffer};
  for (const Scenario& scenario : FloatScenarios()) {
    for (const Metric metric : kMetrics) {
      list.Add(Make(scenario.name, metric, DType::kFloat32, kTurns[list.turn() % 3]),
               {5, 1000, 64, 10});
      list.Add(Make(scenario.name, metric, DType::kFloat32, kChunks), {4, 600, 32, 20});
    }
  }
  for (const std::string_view scenario :
       {"near_ties", "near_ties_off_centre", "negative_near_ties", "underflowing_products",
        "nan_in_most_docs", "non_finite_first", "duplicates", "ascending", "misleading_sample",
        "parallel_rows", "off_centre_both", "hidden_remainders", "far_queries"}) {
    for (const Metric metric : kMetrics) {
      list.Add(Make(scenario, metric, DType::kFloat32, kSplits), {3, 500, 24, 4});
      list.Add(Make(scenario, metric, DType::kBFloat16, kPlanned), {3, 700, 40, 1});
      list.Add(Make(scenario, metric, DType::kFloat64, kPlanned), {3, 700, 40, 7});
    }
  }
  for (const int64_t k : {1, 2, 5, 30}) {
    list.Add(Make("far_queries", Metric::kL2, DType::kFloat32, kPlanned), {6, 700, 40, k});
    list.Add(Make("wide_range", Metric::kL2, DType::kFloat32, kPlanned), {6, 100, 17, k});
  }
}

// More queries in a tile than the kernel for few of them takes: the GEMM library's turn.
void AddManyQueries(ListBuilder& list) {
  constexpr std::array<PlanOverrides, 2> kTurns = {kPlanned, kChunks};
  for (const Scenario& scenario : FloatScenarios()) {
    for (const Metric metric : kMetrics) {
      const bool wide = list.turn() % 8 == 7;
      Case c = Make(scenario.name, metric, wide ? DType::kFloat64 : DType::kFloat32,
                    kTurns[list.turn() % 2]);
      c.name = "many_" + c.name;
      list.Add(c, {21, 190, 33, 4});
    }
  }
}

// So many docs that some lie closer together than what codes of eight bits can tell apart, in
// numbers small, large, and far from the origin.
void AddManyDocs(ListBuilder& list) {
  for (const std::string_view scenario :
       {"bell", "off_centre", "off_centre_both", "around_1e20", "around_1e_minus_20",
        "huge_dimension", "row_scales", "near_ties_off_centre"}) {
    for (const Metric metric : kMetrics) {
      Case c = Make(scenario, metric, DType::kFloat32, kPlanned);
      c.name = "many_docs_" + c.name;
      list.Add(c, {10, 3000, 24, 60});
    }
  }
  for (const std::string_view scenario :
       {"codable_docs", "codable_queries_tiny_docs", "codable_far_from_zero"}) {
    for (const Metric metric : kMetrics) {
      for (const int64_t k : {10, 30, 90}) {
        Case c = Make(scenario, metric, DType::kFloat32, kPlanned);
        c.name = "many_docs_" + c.name;
        list.Add(c, {20, 510, 24, k});
      }
    }
  }
}

// So few docs that all are in the sample that makes the centre of codes.
void AddTwoDigits(ListBuilder& list) {
  for (const Metric metric : kMetrics) {
    for (const int64_t dim : {100, 768}) {
      list.Add(Make("two_digits", metric, DType::kFloat32, kPlanned), {20, 250, dim, 3});
    }
  }
}

// Long rows, where errors add up to what the bound allows.
void AddLongRows(ListBuilder& list) {
  for (const Metric metric : kMetrics) {
    for (const int64_t dim : {100, 256, 500, 1000}) {
      for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
        list.Add(Make("absorbed_terms", metric, dtype, kPlanned), {4, 90, dim, 3});
        list.Add(Make("absorbed_terms", metric, dtype, kChunks), {2, 90, dim, 8});
      }
    }
    for (const DType dtype : {DType::kFloat16, DType::kBFloat16, DType::kFloat32}) {
      list.Add(Make("truncated_terms", metric, dtype, kPlanned), {2, 90, 2048, 3});
    }
    for (const int64_t dim : {1000, 4096}) {
      list.Add(Make("underflowing_products", metric, DType::kFloat32, kPlanned), {2, 80, dim, 6});
      list.Add(Make("underflowing_products", metric, DType::kFloat32, kTiny), {2, 80, dim, 10});
      list.Add(Make("bell", metric, DType::kFloat32, kChunks), {2, 80, dim, 5});
    }
  }
}

// Shapes on both sides of the edges of vectors and tiles.
void AddShapes(ListBuilder& list) {
  constexpr std::array<int64_t, 20> kDims = {1,  2,  3,  7,  8,   15,  16,  17,  31,  32,
                                             33, 63, 64, 65, 100, 127, 128, 129, 768, 1000};
  constexpr std::array<int64_t, 7> kDocs = {1, 2, 5, 63, 64, 65, 257};
  constexpr std::array<int64_t, 4> kQueries = {1, 2, 3, 17};
  const auto add = [&](int64_t num_docs, int64_t dim, int64_t num_queries) {
    const size_t turn = list.turn();
    const std::array<int64_t, 5> ks = {1, 2, num_docs - 1, num_docs, num_docs / 3};
    const int64_t k = std::clamp<int64_t>(ks[(turn + turn / 5) % ks.size()], 1, num_docs);
    const DType dtype = turn % 5 == 4 ? kIntegers[(turn / 5) % 5] : kFloats[turn % 4];
    Case c = Make(IsFloatingPoint(dtype) ? "bell" : "small_integers", kMetrics[turn % 3], dtype,
                  kPlans[turn % kPlans.size()]);
    c.name = "shape_" + c.name;
    list.Add(c, {num_queries, num_docs, dim, k});
  };
  size_t turn = 0;
  for (const int64_t dim : kDims) {
    for (const int64_t num_docs : kDocs) {
      add(num_docs, dim, dim >= 768 ? 2 : kQueries[(turn + turn / 7) % kQueries.size()]);
      ++turn;
    }
  }
  for (const int64_t dim : {2, 17, 64, 129}) add(1000, dim, 3);
  for (const int64_t dim : {3, 16, 65}) add(3000, dim, 2);
  add(1000, 768, 1);
  add(3000, 100, 17);
  // Every k around the edges of one problem.
  for (const int64_t k : {1, 2, 3, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129, 298, 299, 300}) {
    for (const PlanOverrides& plan : {kPlanned, kTiny}) {
      Case c = Make("bell", kMetrics[static_cast<size_t>(k) % 3], DType::kFloat32, plan);
      c.name = "k_edge_" + c.name;
      list.Add(c, {3, 300, 10, k});
    }
  }
}

// Every k around the powers of two at which a selection or a sort may change its ways.
void AddGreatK(ListBuilder& list) {
  constexpr std::array<DType, 4> kDTypes = {DType::kFloat32, DType::kFloat16, DType::kBFloat16,
                                            DType::kInt8};
  for (const int64_t k :
       {255, 256, 257, 1023, 1024, 1025, 2047, 2048, 2049, 4095, 4096, 4097, 5000}) {
    for (const Metric metric : kMetrics) {
      const DType dtype = kDTypes[list.turn() % kDTypes.size()];
      Case c = Make(IsFloatingPoint(dtype) ? "bell" : "small_integers", metric, dtype,
                    list.turn() % 2 == 0 ? kPlanned : kSmallBuffer);
      c.name = "great_k_" + c.name;
      list.Add(c, {2, 5300, 4, k});
    }
  }
}

// Every pair of file dtype and compute dtype that is allowed, the other side in the next dtype.
void AddDTypePairs(ListBuilder& list) {
  for (size_t i = 0; i < kFileDTypes.size(); ++i) {
    for (size_t j = 1; j < kFileDTypes.size(); ++j) {  // bool is no compute dtype
      const DType compute = kFileDTypes[j];
      for (size_t next = 0; next < kFileDTypes.size(); next += 3) {
        const DType query = kFileDTypes[i];
        const DType doc = kFileDTypes[(i + next) % kFileDTypes.size()];
        if (!CheckConversion(query, compute).ok() || !CheckConversion(doc, compute).ok()) continue;
        const bool rounds = IsFloatingPoint(query) && IsFloatingPoint(doc);
        Case c = Make(rounds ? "bell" : "small_integers", kMetrics[list.turn() % 3], compute,
                      kPlans[list.turn() % kPlans.size()]);
        c.name = "dtypes_" + c.name;
        c.query_dtype = query;
        c.doc_dtype = doc;
        list.Add(c, {2, 70, 19, 9});
      }
    }
  }
}

// Wide files rounded to narrow compute dtypes where that makes subnormals, infinities and ties.
void AddNarrowing(ListBuilder& list) {
  for (const std::string_view scenario :
       {"maximal_values", "wide_range", "around_1e38", "around_1e_minus_38", "row_scales",
        "near_ties", "ulp_ladder", "subnormals", "inf_everywhere", "nan_and_inf_in_both"}) {
    for (const DType file : {DType::kFloat64, DType::kFloat32}) {
      for (const DType compute : kFloats) {
        if (file == compute) continue;
        Case c = Make(scenario, kMetrics[list.turn() % 3], compute, kPlans[list.turn() % 4]);
        c.name = "narrowing_" + c.name;
        c.query_dtype = c.doc_dtype = file;
        list.Add(c, {3, 90, 21, 8});
      }
    }
  }
  for (const std::string_view scenario : {"full_range", "conversion_midpoints", "extremes"}) {
    for (const DType file : {DType::kInt32, DType::kInt64}) {
      for (const DType compute : kFloats) {
        Case c = Make(scenario, kMetrics[list.turn() % 3], compute, kPlans[list.turn() % 4]);
        c.name = "narrowing_" + c.name;
        c.query_dtype = c.doc_dtype = file;
        list.Add(c, {3, 90, 21, 8});
      }
    }
  }
}

void AddExcludeSelf(ListBuilder& list) {
  for (const Metric metric : kMetrics) {
    for (const PlanOverrides& plan : kPlans) {
      for (const DType dtype : {DType::kFloat32, DType::kFloat64, DType::kInt8}) {
        const bool integer = dtype == DType::kInt8;
        Case c = Make(integer ? "self_matching_integers" : "self_matches", metric, dtype, plan);
        c.name = "exclude_" + c.name;
        c.exclude_self = true;
        list.Add(c, {5, 40, 12, 6});
        list.Add(c, {5, 40, 12, 39});
        // More queries than docs: the last queries exclude nothing.
        list.Add(c, {17, 9, 12, 8});
        // Docs that begin in the middle of the queries, or behind them.
        Case range = c;
        range.first_doc = 4;
        range.name = "range_from_4_" + c.name;
        list.Add(range, {17, 9, 12, 8});
        list.Add(range, {9, 40, 12, 6});
        range.first_doc = int64_t{1} << 40;
        range.name = "range_from_far_" + c.name;
        list.Add(range, {5, 40, 12, 6});
      }
    }
    Case c = Make("all_equal_rows", metric, DType::kFloat32, kTiny);
    c.name = "exclude_" + c.name;
    c.exclude_self = true;
    list.Add(c, {9, 8, 5, 3});
  }
}

// Rows that lie apart, or are gone as soon as the interface allows.
void AddStorages(ListBuilder& list) {
  for (const Storage storage : {Storage::kStrided, Storage::kShortLived}) {
    for (const DType dtype : kFileDTypes) {
      for (const PlanOverrides& plan : {kPlanned, kTiny, kSplits}) {
        const bool is_float = IsFloatingPoint(dtype);
        Case c = Make(is_float ? "bell" : "small_integers", kMetrics[list.turn() % 3],
                      dtype == DType::kBool ? DType::kUInt8 : dtype, plan);
        c.name =
            fmt::format("{}_{}", storage == Storage::kStrided ? "strided" : "short_lived", c.name);
        c.query_dtype = c.doc_dtype = dtype;
        c.storage = storage;
        list.Add(c, {5, 70, 19, 6});
      }
    }
  }
}

}  // namespace

const std::vector<Case>& AllCases() {
  static const std::vector<Case>* const cases = [] {
    ListBuilder list;
    AddScenarios(list);
    AddFineSelections(list);
    AddManyQueries(list);
    AddManyDocs(list);
    AddTwoDigits(list);
    AddLongRows(list);
    AddShapes(list);
    AddDTypePairs(list);
    AddNarrowing(list);
    AddExcludeSelf(list);
    AddStorages(list);
    AddGreatK(list);
    return new std::vector<Case>(list.Take());
  }();
  return *cases;
}

ProblemShape ShapeOfCase(const Case& c) {
  return {.num_queries = c.num_queries,
          .num_docs = c.num_docs,
          .dim = c.dim,
          .k = c.k,
          .metric = c.metric,
          .query_dtype = c.query_dtype,
          .doc_dtype = c.doc_dtype,
          .compute_dtype = c.compute_dtype};
}

SearchPlan PlanOfCase(const Case& c) {
  const ProblemShape shape = ShapeOfCase(c);
  MachineLimits limits;
  limits.threads = c.plan.threads;
  limits.memory_limit_bytes = int64_t{1} << 30;
  absl::StatusOr<SearchPlan> planned = PlanSearch(shape, limits);
  if (!planned.ok()) {
    std::fprintf(stderr, "%s: %s\n", c.name.c_str(), planned.status().ToString().c_str());
    std::abort();
  }
  SearchPlan plan = *planned;
  const auto set = [](int64_t wanted, int64_t most, int64_t& value) {
    if (wanted > 0) value = std::min(wanted, most);
  };
  set(c.plan.query_batch, c.num_queries, plan.query_batch);
  set(c.plan.doc_chunk, c.num_docs, plan.doc_chunk);
  set(c.plan.doc_block, plan.doc_chunk, plan.doc_block);
  plan.doc_block = std::min(plan.doc_block, plan.doc_chunk);
  set(c.plan.doc_splits, plan.doc_block, plan.doc_splits);
  set(c.plan.query_tile, plan.query_batch, plan.query_tile);
  plan.query_tile = std::min(plan.query_tile, plan.query_batch);
  set(c.plan.doc_tile, plan.doc_tile, plan.doc_tile);
  if (c.plan.candidate_slack.has_value()) {
    plan.candidate_capacity = std::max<int64_t>(1, c.k + *c.plan.candidate_slack);
  }
  plan.num_passes = (c.num_queries + plan.query_batch - 1) / plan.query_batch;
  plan.num_chunks = (c.num_docs + plan.doc_chunk - 1) / plan.doc_chunk;
  return plan;
}

}  // namespace tiny_knn::conformance
