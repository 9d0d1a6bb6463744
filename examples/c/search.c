/* Searches docs in memory for the nearest of some queries.
 *
 *   cc search.c -ltiny_knn      or      bazel run //examples/c:search
 */
#include <stdio.h>
#include <string.h>

#include "capi/tiny_knn.h"

enum { kDocs = 1000, kDim = 3, kQueries = 2, kNearest = 4 };

static tknn_status open_rows(const char* name, const float* data, int64_t rows, tknn_rows** out) {
  tknn_matrix matrix;
  memset(&matrix, 0, sizeof(matrix));
  matrix.data = data;
  matrix.rows = rows;
  matrix.dim = kDim;
  matrix.row_stride_bytes = kDim * sizeof(float);
  matrix.column_stride_bytes = sizeof(float);
  matrix.dtype = TKNN_DTYPE_FLOAT32;
  return tknn_rows_from_memory(name, &matrix, out);
}

int main(void) {
  static float docs[kDocs * kDim]; /* points on a line, one a row */
  const float queries[kQueries * kDim] = {7.25F, 7.25F, 7.25F, 500, 500, 500};
  int64_t indices[kQueries * kNearest];
  float scores[kQueries * kNearest];
  tknn_engine* engine = NULL;
  tknn_rows *query_rows = NULL, *doc_rows = NULL;
  tknn_search_params params;
  int failed = 1, query, rank, i;

  for (i = 0; i < kDocs * kDim; ++i) {
    const int row = i / kDim;
    docs[i] = (float)row;
  }
  memset(&params, 0, sizeof(params));
  params.k = kNearest;
  params.metric = TKNN_METRIC_L2;

  if (tknn_engine_open("cpu", 0, &engine) || open_rows("docs", docs, kDocs, &doc_rows) ||
      open_rows("queries", queries, kQueries, &query_rows) ||
      tknn_search(engine, query_rows, doc_rows, &params, NULL, indices, scores, NULL)) {
    fprintf(stderr, "%s\n", tknn_last_error());
  } else {
    failed = 0;
    for (query = 0; query < kQueries; ++query) {
      printf("query %d:", query);
      for (rank = 0; rank < kNearest; ++rank) {
        i = query * kNearest + rank;
        printf("  doc %ld (%g)", (long)indices[i], (double)scores[i]);
      }
      printf("\n");
    }
  }
  tknn_rows_close(query_rows);
  tknn_rows_close(doc_rows);
  tknn_engine_close(engine);
  return failed;
}
