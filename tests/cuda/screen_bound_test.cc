// The screen's interval holds G of every pair, with sums as badly rounded as the emulated GPU
// knows, or as the machine's own does it (tools/gpu_check): what the filter compares, rebuilt from
// the numbers that the kernels make. Prints the largest error found, as a share of the bound.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "core/matrix/convert.h"
#include "gpu/device_context.h"
#include "gpu/device_docs.h"
#include "gpu/prepare_kernels.h"
#include "gpu/query_bounds.h"
#include "tests/conformance/generator.h"
#include "tests/cuda/case_device.h"

namespace tiny_knn {
namespace {

using conformance::Value;

struct Subject {
  DType dtype;
  RowFormat format;
};

// Rows of one side on the device, and as exact as long double is.
struct Side {
  DocChunk chunk;
  DeviceBuffer<RowSums> sums;
  std::vector<Value> values;  // [rows, dim], rounded to the dtype
};

template <typename T>
std::vector<T> Download(const T* from, int64_t count) {
  std::vector<T> values(static_cast<size_t>(count));
  EXPECT_EQ(cudaMemcpy(values.data(), from, values.size() * sizeof(T), cudaMemcpyDeviceToHost),
            cudaSuccess);
  return values;
}

void Prepare(const DeviceContext& context, const Subject& subject, Metric metric,
             const std::vector<Value>& values, int64_t rows, int64_t dim, Side& side) {
  const conformance::StoredMatrix stored =
      conformance::Store(values, subject.dtype, rows, dim, 0, 0);
  DeviceBuffer<std::byte> source;
  ASSERT_TRUE(source.Allocate(static_cast<int64_t>(stored.bytes.size())).ok());
  ASSERT_TRUE(side.chunk.Allocate(subject.format, dim, rows).ok());
  ASSERT_TRUE(side.sums.Allocate(rows).ok());
  ASSERT_EQ(
      cudaMemcpy(source.data(), stored.bytes.data(), stored.bytes.size(), cudaMemcpyHostToDevice),
      cudaSuccess);
  PrepareRowsArgs args;
  args.source = source.data();
  args.source_dtype = args.compute_dtype = subject.dtype;
  args.num_rows = rows;
  args.dim = static_cast<int32_t>(dim);
  args.stride = static_cast<int32_t>(side.chunk.stride());
  args.is_cosine = metric == Metric::kCosine;
  args.is_l2 = metric == Metric::kL2;
  args.row_type = subject.format.row_type;
  args.rows = side.chunk.Rows(0);
  args.rounded_rows = side.chunk.RoundedRows(0);
  args.screens = side.chunk.screens();
  args.tails = side.chunk.tails();
  args.sums = side.sums.data();
  ASSERT_EQ(PrepareRows(args, context.compute()), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(context.compute()), cudaSuccess);
  std::vector<float> working(static_cast<size_t>(rows * dim));
  ConvertCounts counts;
  ASSERT_TRUE(ConvertRows<float>(stored.view, subject.dtype, 0, working.data(), dim, counts).ok());
  side.values.assign(working.begin(), working.end());
}

// The largest |error| / bound of one problem; above 1 the interval does not hold.
double LargestShare(const Subject& subject, Metric metric, std::string_view scenario, int64_t dim,
                    uint64_t seed) {
  constexpr int64_t kQueries = 4;
  constexpr int64_t kDocs = 48;
  const auto device = conformance::MakeCaseDevice(seed);
  const auto context = DeviceContext::Open(0);
  EXPECT_TRUE(context.ok());
  conformance::Problem problem{.num_queries = kQueries,
                               .num_docs = kDocs,
                               .dim = dim,
                               .query_dtype = subject.dtype,
                               .doc_dtype = subject.dtype,
                               .compute_dtype = subject.dtype};
  problem.queries.assign(kQueries * dim, 0);
  problem.docs.assign(kDocs * dim, 0);
  conformance::Random random(seed + 7);
  conformance::FindScenario(scenario).fill(problem, random);
  Side queries, docs;
  Prepare(**context, subject, metric, problem.queries, kQueries, dim, queries);
  Prepare(**context, subject, metric, problem.docs, kDocs, dim, docs);
  DeviceBuffer<float> tile;
  EXPECT_TRUE(tile.Allocate(kQueries * kDocs).ok());
  GemmArgs gemm;
  gemm.kind = subject.format.gemm;
  gemm.queries = queries.chunk.GemmRows(0);
  gemm.docs = docs.chunk.GemmRows(0);
  gemm.num_queries = kQueries;
  gemm.num_docs = kDocs;
  gemm.stride = static_cast<int32_t>(docs.chunk.stride());
  gemm.scores = tile.data();
  gemm.score_stride = kDocs;
  EXPECT_TRUE((*context)->Multiply(gemm).ok());
  EXPECT_EQ(cudaStreamSynchronize((*context)->compute()), cudaSuccess);
  const auto scores = Download(tile.data(), kQueries * kDocs);
  const auto screens = Download(docs.chunk.screens(), kDocs);
  const auto tails = Download(docs.chunk.tails(), kDocs);
  const auto sums = Download(queries.sums.data(), kQueries);
  double largest = 0;
  for (int64_t q = 0; q < kQueries; ++q) {
    const QueryBounds query = BoundsOfQuery(sums[q], metric, subject.format.gemm, dim);
    for (int64_t d = 0; d < kDocs; ++d) {
      if (!std::isfinite(screens[d].upper) || !query.units.screened) continue;
      Value dot = 0, qq = 0, dd = 0;
      for (int64_t j = 0; j < dim; ++j) {
        dot += queries.values[q * dim + j] * docs.values[d * dim + j];
        qq += queries.values[q * dim + j] * queries.values[q * dim + j];
        dd += docs.values[d * dim + j] * docs.values[d * dim + j];
      }
      Value g = dot;
      if (metric == Metric::kL2) g -= dd / 2;
      if (metric == Metric::kCosine) g = qq == 0 || dd == 0 ? 0 : dot / std::sqrt(qq * dd);
      float sum = 0;
      std::memcpy(&sum, &scores[q * kDocs + d], sizeof(sum));
      if (subject.format.gemm == GemmKind::kInt8) {
        int32_t integer = 0;
        std::memcpy(&integer, &sum, sizeof(integer));
        sum = static_cast<float>(integer);
      }
      const float s = sum * (query.screen.scale * screens[d].scale);
      const double bound =
          static_cast<double>(query.screen.error_factor) * static_cast<double>(screens[d].norm) +
          static_cast<double>(query.screen.residual_factor) *
              static_cast<double>(screens[d].residual) +
          query.units.absolute_error;
      const double below =
          static_cast<double>(g - (static_cast<Value>(s) + static_cast<Value>(screens[d].upper)));
      const double above =
          static_cast<double>((static_cast<Value>(s) + static_cast<Value>(tails[d].lower)) - g);
      const double error = std::max(below, above);
      if (error > 0) largest = std::max(largest, bound > 0 ? error / bound : INFINITY);
    }
  }
  return largest;
}

TEST(CudaScreen, ItsIntervalHoldsEveryPair) {
  const Subject subjects[] = {
      {DType::kFloat16, {RowType::kFloat16, GemmKind::kFloat16}},
      {DType::kBFloat16, {RowType::kBFloat16, GemmKind::kBFloat16}},
      {DType::kFloat32, {RowType::kFloat32, GemmKind::kTf32}},
      {DType::kFloat32, {RowType::kFloat32, GemmKind::kFloat32}},
  };
  for (const Subject& subject : subjects) {
    for (const Metric metric : {Metric::kInnerProduct, Metric::kCosine, Metric::kL2}) {
      double largest = 0;
      for (const std::string_view scenario :
           {"bell", "off_centre", "absorbed_terms", "truncated_terms", "near_ties", "row_scales"}) {
        for (const int64_t dim : {3, 64, 500}) {
          for (const uint64_t seed : {0, 1}) {
            const double share = LargestShare(subject, metric, scenario, dim, seed);
            EXPECT_LE(share, 1) << scenario << " dim " << dim << " " << MetricName(metric);
            largest = std::max(largest, share);
          }
        }
      }
      std::printf("%s rows by %s, %s: largest error / bound %.3f\n",
                  std::string(DTypeName(subject.dtype)).c_str(),
                  std::string(GemmKindName(subject.format.gemm)).c_str(),
                  std::string(MetricName(metric)).c_str(), largest);
      EXPECT_GT(largest, 0);
    }
  }
}

}  // namespace
}  // namespace tiny_knn
