/* The header is C, and the library serves a C program. */
#include <stdio.h>
#include <string.h>

#include "capi/tiny_knn.h"

#define CHECK(condition)                                          \
  do {                                                            \
    if (!(condition)) {                                           \
      fprintf(stderr, "%s: %s\n", #condition, tknn_last_error()); \
      return 1;                                                   \
    }                                                             \
  } while (0)

int main(void) {
  const float docs[4][2] = {{1, 0}, {0, 1}, {2, 2}, {-1, 0}};
  const float queries[2][2] = {{1, 0}, {0, 3}};
  const int64_t expected[2][2] = {{2, 0}, {2, 1}};
  int64_t indices[2][2];
  float scores[2][2];
  tknn_matrix matrix;
  tknn_search_params params;
  tknn_report report;
  tknn_engine* engine = NULL;
  tknn_rows *query_rows = NULL, *doc_rows = NULL;

  memset(&matrix, 0, sizeof(matrix));
  memset(&params, 0, sizeof(params));
  matrix.data = docs;
  matrix.rows = 4;
  matrix.dim = 2;
  matrix.row_stride_bytes = sizeof(docs[0]);
  matrix.column_stride_bytes = sizeof(float);
  CHECK(tknn_rows_from_memory("docs", &matrix, &doc_rows) == TKNN_OK);
  matrix.data = queries;
  matrix.rows = 2;
  CHECK(tknn_rows_from_memory("queries", &matrix, &query_rows) == TKNN_OK);
  CHECK(tknn_engine_open("cpu", 0, &engine) == TKNN_OK);
  params.k = 2;
  CHECK(tknn_search(engine, query_rows, doc_rows, &params, NULL, &indices[0][0], &scores[0][0],
                    &report) == TKNN_OK);
  CHECK(memcmp(indices, expected, sizeof(indices)) == 0);
  CHECK(scores[0][0] == 2 && scores[0][1] == 1 && scores[1][0] == 6 && scores[1][1] == 3);
  params.k = 5;
  CHECK(tknn_search(engine, query_rows, doc_rows, &params, NULL, &indices[0][0], &scores[0][0],
                    NULL) == TKNN_INVALID_ARGUMENT);
  CHECK(strcmp(tknn_last_error(), "k=5 exceeds the number of docs D=4 in docs") == 0);
  tknn_rows_close(query_rows);
  tknn_rows_close(doc_rows);
  tknn_engine_close(engine);
  return 0;
}
