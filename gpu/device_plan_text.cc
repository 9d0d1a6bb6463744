#include "gpu/device_plan_text.h"

#include <algorithm>

#include "core/matrix/dtype.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

int64_t CeilDivide(int64_t value, int64_t unit) { return (value + unit - 1) / unit; }

// A batch of the host's is searched in as many passes over the docs as the device needs.
int64_t NumPasses(int64_t num_queries, int64_t host_batch, int64_t device_batch) {
  return num_queries / host_batch * CeilDivide(host_batch, device_batch) +
         CeilDivide(num_queries % host_batch, device_batch);
}

}  // namespace

std::string DescribeDeviceSearch(const ProblemShape& shape, const SearchPlan& host_plan,
                                 const DeviceSearch& search) {
  const DevicePlan& plan = search.plan;
  const int64_t passes = NumPasses(shape.num_queries, host_plan.query_batch, plan.query_batch);
  const int64_t row_bytes = shape.dim * ItemSize(shape.doc_dtype);
  const int64_t bytes_read = shape.num_queries * shape.dim * ItemSize(shape.query_dtype) +
                             shape.num_docs * row_bytes * (search.docs_stay ? 1 : passes);
  const int64_t doc_bytes = std::max(plan.doc_chunk, search.docs_stay ? shape.num_docs : 0) *
                            DeviceBytesPerDoc(search.shape.format, shape.dim);
  const int64_t plan_doc_bytes = search.docs_stay ? 0 : doc_bytes;
  const int64_t pinned_bytes =
      2 * plan.slice_docs * row_bytes +
      plan.group * (shape.k + 1) * static_cast<int64_t>(sizeof(PairKey)) +
      plan.doubts * (shape.dim * static_cast<int64_t>(sizeof(float)) +
                     static_cast<int64_t>(sizeof(Doubt) + sizeof(PairKey)));
  return PlanLine("search", DescribeShape(shape)) +
         PlanLine("screen", fmt::format("{} products by cuBLAS, tiles of {} queries x {} docs",
                                        GemmKindName(search.shape.format.gemm), plan.query_tile,
                                        plan.doc_tile)) +
         PlanLine("batches", fmt::format("{} of up to {} queries, one pass over the docs each{}",
                                         passes, plan.query_batch,
                                         search.docs_stay ? ", which stay on the device" : "")) +
         PlanLine("chunks", fmt::format("{} per pass, of up to {} docs, copied {} at a time",
                                        CeilDivide(shape.num_docs, plan.doc_chunk), plan.doc_chunk,
                                        plan.slice_docs)) +
         PlanLine("candidates", fmt::format("{} per query", plan.capacity)) +
         PlanLine("bytes read", BytesText(bytes_read)) +
         PlanLine("device memory",
                  fmt::format("{} of {}: docs {}, queries {}, tile, staging and library {}",
                              BytesText(plan.bytes - plan_doc_bytes + doc_bytes),
                              BytesText(search.budget_bytes), BytesText(doc_bytes),
                              BytesText(plan.bytes - plan.fixed_bytes - plan_doc_bytes),
                              BytesText(plan.fixed_bytes))) +
         PlanLine("pinned memory", BytesText(pinned_bytes));
}

}  // namespace tiny_knn
