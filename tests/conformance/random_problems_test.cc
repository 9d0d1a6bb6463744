// Ten thousand random small problems, every one on an engine and with a plan of its own, against
// the oracle bit for bit. The conformance list says what is thought of; this looks for what is not.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/conformance/conformance_cases.h"
#include "tests/conformance/engines.h"
#include "tests/conformance/generator.h"
#include "tests/conformance/run_case.h"

namespace tiny_knn::conformance {
namespace {

constexpr int64_t kProblems = 10'000;

template <typename T>
const T& OneOf(const std::vector<T>& all, Random& random) {
  return all[static_cast<size_t>(random.Below(static_cast<int64_t>(all.size())))];
}

// Small numbers mostly, and now and then one of up to `most`.
int64_t SomeSize(int64_t most, Random& random) {
  return 1 + random.Below(random.OneIn(4) ? most : std::min<int64_t>(most, 24));
}

PlanOverrides SomePlan(Random& random) {
  PlanOverrides plan{.name = "random"};
  plan.threads = static_cast<int>(1 + random.Below(3));
  const auto maybe = [&](int64_t& size, int64_t most) {
    if (random.OneIn(2)) size = SomeSize(most, random);
  };
  maybe(plan.query_batch, 8);
  maybe(plan.doc_chunk, 300);
  maybe(plan.doc_block, 100);
  maybe(plan.query_tile, 8);
  maybe(plan.doc_tile, 70);
  if (plan.threads > 1 && random.OneIn(3)) plan.doc_splits = plan.threads;
  if (random.OneIn(2)) plan.candidate_slack = random.Below(20) - 5;
  return plan;
}

Case SomeCase(int64_t number, Random& random) {
  static const std::vector<DType> kFloats = {DType::kFloat32, DType::kFloat32,  DType::kFloat32,
                                             DType::kFloat16, DType::kBFloat16, DType::kFloat64};
  static const std::vector<DType> kIntegers = {DType::kInt8, DType::kUInt8, DType::kInt16,
                                               DType::kInt32, DType::kInt64};
  static const std::vector<Metric> kMetrics = {Metric::kInnerProduct, Metric::kCosine, Metric::kL2};
  static const std::vector<Storage> kStorages = {Storage::kPacked, Storage::kPacked,
                                                 Storage::kStrided, Storage::kShortLived};
  const bool integers = random.OneIn(5);
  Case c;
  c.scenario = OneOf(integers ? IntegerScenarios() : FloatScenarios(), random).name;
  c.seed = random.Next();
  c.num_queries = SomeSize(12, random);
  c.num_docs = SomeSize(400, random);
  c.dim = SomeSize(140, random);
  c.metric = OneOf(kMetrics, random);
  c.query_dtype = c.doc_dtype = c.compute_dtype = OneOf(integers ? kIntegers : kFloats, random);
  c.exclude_self = c.num_docs > 1 && random.OneIn(6);
  const int64_t most = c.num_docs - (c.exclude_self ? 1 : 0);
  c.k = random.OneIn(8) ? most : std::min(most, SomeSize(most, random));
  c.storage = OneOf(kStorages, random);
  c.plan = SomePlan(random);
  c.name = fmt::format("random_{}", number);
  return c;
}

TEST(RandomProblemsTest, EqualTheOracleBitForBit) {
  Random random(20261123);
  int64_t failed = 0;
  for (int64_t number = 0; number < kProblems && failed < 3; ++number) {
    const Case c = SomeCase(number, random);
    const EngineUnderTest& engine = OneOf(EnginesUnderTest(), random);
    const std::string difference = RunCase(c, engine);
    if (difference.empty()) continue;
    ++failed;
    ADD_FAILURE() << c.name << " on " << engine.name << ": scenario " << c.scenario << ", seed "
                  << c.seed << ", " << c.num_queries << " x " << c.num_docs << " x " << c.dim
                  << ", k=" << c.k << ", " << MetricName(c.metric) << " "
                  << DTypeName(c.compute_dtype) << "\n"
                  << difference;
  }
}

}  // namespace
}  // namespace tiny_knn::conformance
