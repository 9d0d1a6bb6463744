#include "core/cpu/gemm.h"

#include <dnnl.h>
#include <omp.h>

#include <cstdio>
#include <cstdlib>
#include <new>

#include "core/cpu/few_queries_gemm.h"
#include "core/search/isa.h"

namespace tiny_knn {
namespace {

// So many queries are multiplied faster by FewQueries, though it first interleaves them, here again
// for every tile: measured with 128 to 1,536 dims on Zen 5. With rows of 32 dims, 32 queries would
// take twice as long.
constexpr int64_t kMostInterleaved = 16;

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
    case IsaLevel::kAmx:
      break;
  }
  return true;
}

}  // namespace

void MultiplyByTransposed(const float* queries, int64_t query_stride, int64_t num_queries,
                          const float* docs, int64_t doc_stride, int64_t num_docs, int64_t dim,
                          float* scores, int64_t score_stride) {
  if (num_queries <= kMostInterleaved) {
    MultiplyFewQueries(queries, query_stride, num_queries, docs, doc_stride, num_docs, dim, scores,
                       score_stride);
    return;
  }
  static const bool applied = ApplyIsaLevel();
  static_cast<void>(applied);
  // oneDNN would start a team in each of our threads. The setting is the calling thread's own, and
  // the caller may be a host's thread, with OpenMP code of its own: it gets it back.
  const int host_threads = omp_get_max_threads();
  if (host_threads != 1) omp_set_num_threads(1);
  const dnnl_status_t status =
      dnnl_sgemm('N', 'T', num_queries, num_docs, dim, 1.0F, queries, query_stride, docs,
                 doc_stride, 0.0F, scores, score_stride);
  if (host_threads != 1) omp_set_num_threads(host_threads);
  if (status == dnnl_out_of_memory) throw std::bad_alloc();  // of its scratch memory
  if (status != dnnl_success) {
    // Nothing but wrong arguments ends here.
    std::fprintf(stderr, "tiny-knn: oneDNN's sgemm failed with status %d\n",
                 static_cast<int>(status));
    std::abort();
  }
}

}  // namespace tiny_knn
