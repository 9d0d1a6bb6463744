#include "core/cpu/gemm.h"

#include <dnnl.h>
#include <omp.h>

#include <cstdio>
#include <cstdlib>

#include "core/search/isa.h"

namespace tiny_knn {
namespace {

// oneDNN picks its kernels once per process; a test that forced a lower level is obeyed.
bool ApplyIsaLevel() {
  switch (CurrentIsaLevel()) {
    case IsaLevel::kPortable:
      dnnl_set_max_cpu_isa(dnnl_cpu_isa_sse41);
      break;
    case IsaLevel::kAvx2:
      dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2);
      break;
    case IsaLevel::kAvx512:
      break;
  }
  return true;
}

}  // namespace

void MultiplyByTransposed(const float* queries, int64_t query_stride, int64_t num_queries,
                          const float* docs, int64_t doc_stride, int64_t num_docs, int64_t dim,
                          float* scores, int64_t score_stride) {
  static const bool applied = ApplyIsaLevel();
  static_cast<void>(applied);
  omp_set_num_threads(1);  // this thread's own setting: oneDNN would start a team in each of ours
  const dnnl_status_t status =
      dnnl_sgemm('N', 'T', num_queries, num_docs, dim, 1.0F, queries, query_stride, docs,
                 doc_stride, 0.0F, scores, score_stride);
  if (status != dnnl_success) {
    // Only wrong arguments or a failed allocation of its scratch memory end here.
    std::fprintf(stderr, "tiny-knn: oneDNN's sgemm failed with status %d; out of memory?\n",
                 static_cast<int>(status));
    std::abort();
  }
}

}  // namespace tiny_knn
