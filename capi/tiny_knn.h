/* The C interface of tiny-knn: exact top-k search over embeddings.
 *
 * Scores are correctly rounded, ranks are by score and then by index, and what is found depends on
 * nothing but the two matrices and the parameters (docs/exactness.md).
 *
 *   tknn_engine* engine = NULL;
 *   tknn_rows *queries = NULL, *docs = NULL;
 *   tknn_search_params params = {0};
 *   params.k = 10;
 *   if (tknn_engine_open("auto", 0, &engine) || tknn_rows_open("q.npy", TKNN_DTYPE_AS_STORED,
 * &queries) || tknn_rows_open("d.npy", TKNN_DTYPE_AS_STORED, &docs) || tknn_search(engine, queries,
 * docs, &params, NULL, indices, scores, NULL)) { fprintf(stderr, "%s\n", tknn_last_error());
 *   }
 *   tknn_rows_close(queries), tknn_rows_close(docs), tknn_engine_close(engine);
 *
 * Status. Functions that can fail return a tknn_status, TKNN_OK (0) where all went well. The
 * message of a failure is one line that says what, where and what to do: tknn_last_error. No C++
 * exception leaves the library, and it writes to no stream.
 *
 * Ownership. What a function gives through its last parameter `out` is the caller's, to be given
 * back to the _close or _destroy function of its type, which takes NULL too. After a failure *out
 * is NULL. Pointers that a function returns belong to the object they came from, unless they say
 * otherwise. Arrays are the caller's.
 *
 * Threads. Different objects may be used by different threads at once. One object is for one call
 * at a time, but for tknn_control; an engine or a corpus that is in use already says TKNN_BUSY.
 * After a fork, the child may use every object that no call was using.
 *
 * ABI. Within one TKNN_ABI_VERSION functions, fields and values are only ever added: fields in
 * place of `reserved` ones, which are to be 0.
 */
#ifndef TINY_KNN_H_
#define TINY_KNN_H_

/* C has no other words: NOLINTBEGIN(modernize-*) */

#include <stdint.h>

#if defined(__GNUC__)
#define TKNN_API __attribute__((visibility("default")))
#else
#define TKNN_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define TKNN_ABI_VERSION 1

typedef int32_t tknn_status;
enum {
  TKNN_OK = 0,
  TKNN_INVALID_ARGUMENT = 1,   /* wrong use, or a file that is none of the expected kind */
  TKNN_NOT_FOUND = 2,          /* no such file or folder */
  TKNN_PERMISSION_DENIED = 3,  /* of a file */
  TKNN_DATA_LOSS = 4,          /* a file changed or was truncated while it was read */
  TKNN_RESOURCE_EXHAUSTED = 5, /* no memory, no disk space, too many files or threads */
  TKNN_CANCELLED = 6,          /* by tknn_control_cancel; nothing was written */
  TKNN_UNAVAILABLE = 7,        /* a device that is not there */
  TKNN_BUSY = 8,               /* the object is in another call */
  TKNN_INTERNAL = 9            /* a failed system call, or a bug of tiny-knn */
};

typedef int32_t tknn_metric;
enum {
  TKNN_METRIC_IP = 0,     /* inner product */
  TKNN_METRIC_COSINE = 1, /* 0 where a row is all zeros */
  TKNN_METRIC_L2 = 2      /* negated squared Euclidean distance: greater is closer */
};

typedef int32_t tknn_dtype;
enum {
  TKNN_DTYPE_AS_STORED = -1, /* of a file: what its header says */
  TKNN_DTYPE_FLOAT32 = 0,
  TKNN_DTYPE_FLOAT64 = 1,
  TKNN_DTYPE_FLOAT16 = 2,  /* IEEE binary16 */
  TKNN_DTYPE_BFLOAT16 = 3, /* the upper half of a float32 */
  TKNN_DTYPE_INT8 = 4,
  TKNN_DTYPE_UINT8 = 5,
  TKNN_DTYPE_INT16 = 6,
  TKNN_DTYPE_INT32 = 7,
  TKNN_DTYPE_INT64 = 8,
  TKNN_DTYPE_BOOL = 9 /* of rows; nothing is computed in it */
};

/* "0.1.0". Static. */
TKNN_API const char* tknn_version(void);

/* The TKNN_ABI_VERSION that the library was built with. */
TKNN_API int32_t tknn_abi_version(void);

/* What was wrong in the last call of this thread that failed: UTF-8 but for the bytes of file
 * names, one line, "" before any. Valid until the next failure of this thread. */
TKNN_API const char* tknn_last_error(void);

/* The errno of the system call that failed then; 0 where it was none. */
TKNN_API int32_t tknn_last_errno(void);

/* ---- Control: progress of a search, and its end before time. Any thread, at any time. ---- */

typedef struct tknn_control tknn_control;

TKNN_API tknn_status tknn_control_create(tknn_control** out);
TKNN_API void tknn_control_destroy(tknn_control* control);

/* Ends the searches that were given this control within a moment, with TKNN_CANCELLED, and those
 * that will be given it. Async-signal-safe. */
TKNN_API void tknn_control_cancel(tknn_control* control);

/* Query-doc pairs that the search was done with when it last said so, and all there are; both 0
 * before its beginning. */
TKNN_API void tknn_control_progress(const tknn_control* control, int64_t* pairs_done,
                                    int64_t* pairs_total);

/* ---- Engine: what searches. Keeps its threads from one search to the next. ---- */

typedef struct tknn_engine tknn_engine;

/* device: "auto" (CUDA if there is a device, else the CPU), "cpu", "cuda", "cuda:N"; NULL is
 * "auto". gpu_memory_bytes: most device memory to use; 0: what is free. */
TKNN_API tknn_status tknn_engine_open(const char* device, int64_t gpu_memory_bytes,
                                      tknn_engine** out);
TKNN_API void tknn_engine_close(tknn_engine* engine);

/* "cpu" or "cuda". */
TKNN_API const char* tknn_engine_device(const tknn_engine* engine);

/* Why "auto" did not choose CUDA; "" where there is nothing to say. */
TKNN_API const char* tknn_engine_note(const tknn_engine* engine);

/* ---- Rows: a matrix, one embedding a row. ---- */

typedef struct tknn_rows tknn_rows;

/* Element (i, j) of [rows, dim] starts i * row_stride_bytes + j * column_stride_bytes bytes behind
 * `data`, which need not be aligned. Strides may be of any sign. */
typedef struct tknn_matrix {
  const void* data;
  int64_t rows;
  int64_t dim;
  int64_t row_stride_bytes;
  int64_t column_stride_bytes;
  tknn_dtype dtype;
  int32_t swap_bytes; /* not 0: stored in the other byte order */
} tknn_matrix;

/* Rows in memory, which has to stay, and to stay as it is, until they are closed. Where elements of
 * a row follow each other, in native byte order, and rows do not overlap, they are read where they
 * lie; others are gathered into a buffer, as much as a search needs at a time. `name` is what
 * messages call them. */
TKNN_API tknn_status tknn_rows_from_memory(const char* name, const tknn_matrix* matrix,
                                           tknn_rows** out);

/* A two-dimensional .npy file; or several, as docs/shards.md says: a folder of them or a pattern.
 * stored_dtype: what raw two-byte data is (TKNN_DTYPE_BFLOAT16), else
 * TKNN_DTYPE_AS_STORED. */
TKNN_API tknn_status tknn_rows_open(const char* path, tknn_dtype stored_dtype, tknn_rows** out);
TKNN_API void tknn_rows_close(tknn_rows* rows);

/* Any of the last three may be NULL. */
TKNN_API void tknn_rows_shape(const tknn_rows* rows, int64_t* num_rows, int64_t* dim,
                              tknn_dtype* dtype);

/* ---- Search ---- */

/* All zeros but for k is a search by inner product in float32. The last four never change what is
 * found. */
typedef struct tknn_search_params {
  int64_t k; /* docs per query: 1 to D, D - 1 with exclude_self */
  tknn_metric metric;
  tknn_dtype compute_dtype;   /* every element is rounded to it once; not TKNN_DTYPE_BOOL */
  int32_t exclude_self;       /* not 0: leaves out the doc whose index is the query's */
  int32_t threads;            /* 0: one per CPU this process may use */
  int64_t memory_limit_bytes; /* beside the caller's arrays; 0: 75% of what is available */
  int64_t batch_size;         /* most queries per pass over the docs; 0: as many as fit */
  int64_t reserved[4];
} tknn_search_params;

/* What a search noticed. */
typedef struct tknn_report {
  int64_t nonfinite_query_rows; /* rows with a NaN or an infinity, after conversion */
  int64_t nonfinite_doc_rows;
  int64_t infs_made_in_queries; /* finite elements that the compute dtype cannot hold */
  int64_t infs_made_in_docs;
  int64_t queries_with_tie_at_k; /* rank k and the next doc have equal scores */
  int64_t rescored_pairs;        /* depends on the plan */
  int64_t reserved[4];
} tknn_report;

/* Finds the k docs with the greatest scores of every query, best first: indices [Q, k], and scores
 * [Q, k] of float, of double where compute_dtype is TKNN_DTYPE_FLOAT64, both row-major. After a
 * failure what is in them is of no use. control and report may be NULL. Queries and docs may be of
 * different types, but not the same object. */
TKNN_API tknn_status tknn_search(tknn_engine* engine, tknn_rows* queries, tknn_rows* docs,
                                 const tknn_search_params* params, tknn_control* control,
                                 int64_t* indices, void* scores, tknn_report* report);

/* ---- Corpus: docs for many searches, kept as the first one prepared them. ---- */

typedef struct tknn_corpus tknn_corpus;

/* Takes `docs` over where it succeeds: they are closed with the corpus. */
TKNN_API tknn_status tknn_corpus_create(tknn_rows* docs, tknn_metric metric,
                                        tknn_dtype compute_dtype, tknn_corpus** out);
TKNN_API void tknn_corpus_destroy(tknn_corpus* corpus);

/* As tknn_search. metric and compute_dtype of `params` have to be the corpus's;
 * memory_limit_bytes is for the search and what is kept. */
TKNN_API tknn_status tknn_corpus_search(tknn_corpus* corpus, tknn_engine* engine,
                                        tknn_rows* queries, const tknn_search_params* params,
                                        tknn_control* control, int64_t* indices, void* scores,
                                        tknn_report* report);

/* Memory that is kept for later searches, bytes. */
TKNN_API int64_t tknn_corpus_kept_bytes(const tknn_corpus* corpus);

/* Gives that memory back; a later search prepares the docs again. */
TKNN_API tknn_status tknn_corpus_forget(tknn_corpus* corpus);

/* ---- Job: from two files to a result file, as `tiny-knn run` does. ---- */

/* All zeros but for the two paths is `tiny-knn run QUERIES DOCS`, stored_dtype being
 * TKNN_DTYPE_AS_STORED. */
typedef struct tknn_job_params {
  const char* queries_path;
  const char* docs_path;
  const char* output_path;   /* NULL: top{k}_{queries}_x_{docs}.pkl in the working folder */
  const char* device;        /* as of tknn_engine_open */
  tknn_search_params search; /* with k = 0: 2000, or all where there are fewer */
  tknn_dtype stored_dtype;   /* as of tknn_rows_open */
  /* Least seconds between two savings of the checkpoint; 0: 30, -1: as often as can be. */
  int32_t checkpoint_seconds;
  int64_t gpu_memory_bytes;
  int64_t verify_queries; /* repeated in exact arithmetic before the result is written */
  /* Only docs [docs_begin, docs_end) are searched, and the result is a part for tknn_merge; both 0:
   * all docs, docs_end 0: to the last one. */
  int64_t docs_begin;
  int64_t docs_end;
  /* Where the job keeps how far it is. The same job goes on from there after it was killed or
   * cancelled, and removes it when the result is written. NULL: nowhere. */
  const char* checkpoint_path;
  int64_t reserved[1];
} tknn_job_params;

typedef struct tknn_job tknn_job;

/* The file is there whole, or not at all, and no temporary file stays behind. `control` may be
 * NULL. */
TKNN_API tknn_status tknn_job_run(const tknn_job_params* params, tknn_control* control,
                                  tknn_job** out);
TKNN_API void tknn_job_destroy(tknn_job* job);

/* Where the result is, as the bytes of a file's name. */
TKNN_API const char* tknn_job_output_path(const tknn_job* job);

/* What `run` says of a job that is done, as one JSON object: the members of `done` of
 * `--progress json`, in docs/command_line.md. */
TKNN_API const char* tknn_job_report_json(const tknn_job* job);

/* What it says besides, one line each, "" where nothing: non-finite rows, ties, a reduced k. */
TKNN_API const char* tknn_job_notes(const tknn_job* job);

/* Makes one result file of the parts that jobs with docs_begin and docs_end wrote: that of one job
 * of all docs, bit for bit. Parts that do not belong together, or do not have every doc once, are
 * TKNN_INVALID_ARGUMENT. partial: not 0 for parts that are neighbours but not all docs, which make
 * a larger part. `control` may be NULL; it counts queries instead of pairs. */
TKNN_API tknn_status tknn_merge(const char* const* part_paths, int64_t num_parts,
                                const char* output_path, int32_t partial, tknn_control* control);

/* ---- Result: what a result file holds, read without running anything in it. ---- */

typedef struct tknn_result tknn_result;

TKNN_API tknn_status tknn_result_load(const char* path, tknn_result** out);
TKNN_API void tknn_result_destroy(tknn_result* result);

/* The shape of its arrays [num_queries, k], and TKNN_DTYPE_FLOAT32 or TKNN_DTYPE_FLOAT64. Any of
 * the last three may be NULL. */
TKNN_API void tknn_result_shape(const tknn_result* result, int64_t* num_queries, int64_t* k,
                                tknn_dtype* score_dtype);

/* Copies both arrays; either may be NULL. */
TKNN_API void tknn_result_copy(const tknn_result* result, int64_t* indices, void* scores);

/* The text of "queries_path", "docs_path", "dtype", "device", "metric", "tiny_knn_version",
 * "docs_manifest", "queries_fingerprint" or "docs_fingerprint"; "" where the file has none, NULL
 * for another key. */
TKNN_API const char* tknn_result_text(const tknn_result* result, const char* key);

/* What was asked for; 0 where the file does not say. */
TKNN_API int64_t tknn_result_batch_size(const tknn_result* result);

/* Whether the doc with the query's own row number was left out; 0 where the file does not say. */
TKNN_API int32_t tknn_result_exclude_self(const tknn_result* result);

/* Of a part, which docs it is of: [begin, end) of num_docs, and the k that was asked for. All 0 for
 * a result of all docs. Any of the last four may be NULL. */
TKNN_API void tknn_result_part(const tknn_result* result, int64_t* docs_begin, int64_t* docs_end,
                               int64_t* num_docs, int64_t* k_wanted);

#ifdef __cplusplus
} /* extern "C" */
#endif

/* NOLINTEND(modernize-*) */

#endif /* TINY_KNN_H_ */
