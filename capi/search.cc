// The C functions that search rows into arrays: control, engine, rows, search, corpus.
#include <optional>
#include <string>
#include <utility>

#include "capi/errors.h"
#include "capi/handles.h"
#include "capi/tiny_knn.h"
#include "core/io/docs_files.h"
#include "core/job/version.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// Holds objects for the time of a call.
class Uses {
 public:
  Uses() = default;
  ~Uses() {
    for (size_t i = 0; i < count_; ++i) held_[i]->Leave();
  }
  Uses(const Uses&) = delete;
  Uses& operator=(const Uses&) = delete;

  absl::Status Take(const char* name, tknn_in_use& object) {
    if (!object.Enter()) {
      return absl::AbortedError(
          fmt::format("{} is in use by another call; use one for each thread", name));
    }
    held_[count_++] = &object;
    return absl::OkStatus();
  }

 private:
  tknn_in_use* held_[4] = {};
  size_t count_ = 0;
};

struct Arrays {
  int64_t* indices;
  void* scores;
};

absl::StatusOr<TopKView> OutputOf(const RowSource& queries, const SearchParams& params,
                                  const Arrays& arrays) {
  if (queries.rows() > 0) {
    const absl::Status given = CheckGiven({{"indices", arrays.indices}, {"scores", arrays.scores}});
    if (!given.ok()) return given;
  }
  return TopKView{queries.rows(), params.k, WorkingDType(params.compute_dtype), arrays.scores,
                  arrays.indices};
}

// The first report of a search may take a while: that there is something to wait for is known now.
void Announce(tknn_control* control, const RowSource& queries, const RowSource& docs) {
  int64_t pairs = 0;
  if (control == nullptr || __builtin_mul_overflow(queries.rows(), docs.rows(), &pairs)) return;
  control->Report(0, pairs);
}

absl::Status Search(tknn_engine* engine, tknn_rows* queries, tknn_rows* docs,
                    const tknn_search_params* c_params, tknn_control* control, const Arrays& arrays,
                    tknn_report* c_report) {
  absl::Status status =
      CheckGiven({{"engine", engine}, {"queries", queries}, {"docs", docs}, {"params", c_params}});
  if (!status.ok()) return status;
  const absl::StatusOr<SearchParams> params = ParamsOf(*c_params);
  if (!params.ok()) return params.status();
  const absl::StatusOr<SearchLimits> limits = LimitsOf(*c_params);
  if (!limits.ok()) return limits.status();
  if (queries == docs) {
    return absl::InvalidArgumentError(
        "queries and docs are the same object; open the rows once for each");
  }
  Uses uses;
  status = uses.Take("the engine", engine->in_use);
  if (status.ok()) status = uses.Take("queries", queries->in_use);
  if (status.ok()) status = uses.Take("docs", docs->in_use);
  if (!status.ok()) return status;
  const absl::StatusOr<TopKView> out = OutputOf(*queries->source, *params, arrays);
  if (!out.ok()) return out.status();
  const absl::StatusOr<Engine*> searcher = engine->Get();
  if (!searcher.ok()) return searcher.status();
  Announce(control, *queries->source, *docs->source);
  const absl::StatusOr<SearchReport> report =
      SearchRows(*queries->source, *docs->source, *params, *limits, **searcher, control, *out);
  if (!report.ok()) return report.status();
  if (c_report != nullptr) *c_report = FromReport(*report);
  return absl::OkStatus();
}

absl::Status SearchCorpus(tknn_corpus* corpus, tknn_engine* engine, tknn_rows* queries,
                          const tknn_search_params* c_params, tknn_control* control,
                          const Arrays& arrays, tknn_report* c_report) {
  absl::Status status = CheckGiven(
      {{"corpus", corpus}, {"engine", engine}, {"queries", queries}, {"params", c_params}});
  if (!status.ok()) return status;
  const absl::StatusOr<SearchParams> params = ParamsOf(*c_params);
  if (!params.ok()) return params.status();
  const absl::StatusOr<SearchLimits> limits = LimitsOf(*c_params);
  if (!limits.ok()) return limits.status();
  Uses uses;
  status = uses.Take("the corpus", corpus->in_use);
  if (status.ok()) status = uses.Take("the engine", engine->in_use);
  if (status.ok()) status = uses.Take("queries", queries->in_use);
  if (!status.ok()) return status;
  const CorpusParams& fixed = corpus->corpus->params();
  if (params->metric != fixed.metric || params->compute_dtype != fixed.compute_dtype) {
    return absl::InvalidArgumentError(fmt::format(
        "the corpus is for metric {} in {}, the search asks for {} in {}; make one for each",
        MetricName(fixed.metric), DTypeName(fixed.compute_dtype), MetricName(params->metric),
        DTypeName(params->compute_dtype)));
  }
  const absl::StatusOr<TopKView> out = OutputOf(*queries->source, *params, arrays);
  if (!out.ok()) return out.status();
  const absl::StatusOr<Engine*> searcher = engine->Get();
  if (!searcher.ok()) return searcher.status();
  const absl::StatusOr<SearchReport> report = corpus->corpus->Search(
      *queries->source, params->k, params->exclude_self, *limits, **searcher, control, *out);
  corpus->kept_bytes = corpus->corpus->kept_bytes();
  if (!report.ok()) return report.status();
  if (c_report != nullptr) *c_report = FromReport(*report);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<RowSource>> RowsInMemory(const char* name,
                                                        const tknn_matrix& matrix) {
  const absl::StatusOr<DType> dtype = DTypeOf(matrix.dtype);
  if (!dtype.ok()) return dtype.status();
  if (matrix.rows < 0 || matrix.dim < 0) {
    return absl::InvalidArgumentError(
        fmt::format("{}: the shape is [{}, {}]; neither may be "
                    "negative",
                    name, matrix.rows, matrix.dim));
  }
  int64_t elements = 0, bytes = 0;
  if (__builtin_mul_overflow(matrix.rows, matrix.dim, &elements) ||
      __builtin_mul_overflow(elements, ItemSize(*dtype), &bytes)) {
    return absl::InvalidArgumentError(fmt::format("{}: the shape [{}, {}] is more than any memory",
                                                  name, matrix.rows, matrix.dim));
  }
  if (elements > 0 && matrix.data == nullptr) {
    return absl::InvalidArgumentError(fmt::format("{}: data is NULL", name));
  }
  return MakeStridedRowSource(name, {.data = matrix.data,
                                     .dtype = *dtype,
                                     .rows = matrix.rows,
                                     .dim = matrix.dim,
                                     .row_stride_bytes = matrix.row_stride_bytes,
                                     .column_stride_bytes = matrix.column_stride_bytes,
                                     .swap_bytes = matrix.swap_bytes != 0});
}

}  // namespace
}  // namespace tiny_knn

using tiny_knn::CheckGiven;
using tiny_knn::Guarded;

const char* tknn_version(void) { return tiny_knn::kTinyKnnVersion.data(); }

int32_t tknn_abi_version(void) { return TKNN_ABI_VERSION; }

tknn_status tknn_control_create(tknn_control** out) {
  return Guarded([&]() -> absl::Status {
    absl::Status given = CheckGiven({{"out", out}});
    if (given.ok()) *out = nullptr, *out = new tknn_control;
    return given;
  });
}

void tknn_control_destroy(tknn_control* control) { delete control; }

void tknn_control_cancel(tknn_control* control) {
  if (control != nullptr) control->is_cancelled.store(true, std::memory_order_relaxed);
}

void tknn_control_progress(const tknn_control* control, int64_t* pairs_done, int64_t* pairs_total) {
  if (pairs_done != nullptr) *pairs_done = control == nullptr ? 0 : control->pairs_done.load();
  if (pairs_total != nullptr) *pairs_total = control == nullptr ? 0 : control->pairs_total.load();
}

tknn_status tknn_engine_open(const char* device, int64_t gpu_memory_bytes, tknn_engine** out) {
  return Guarded([&]() -> absl::Status {
    const absl::Status given = CheckGiven({{"out", out}});
    if (!given.ok()) return given;
    *out = nullptr;
    if (gpu_memory_bytes < 0) {
      return absl::InvalidArgumentError(fmt::format(
          "gpu_memory_bytes={}: must be at least 1, or 0 for what is free", gpu_memory_bytes));
    }
    auto engine = std::make_unique<tknn_engine>();
    engine->options = {device == nullptr ? "auto" : device, gpu_memory_bytes};
    absl::StatusOr<tiny_knn::OpenedEngine> opened = tiny_knn::OpenEngine(engine->options);
    if (!opened.ok()) return opened.status();
    engine->engine = std::move(opened->engine);
    engine->device = std::string(engine->engine->device());
    engine->note = opened->note;
    engine->pid = getpid();
    *out = engine.release();
    return absl::OkStatus();
  });
}

void tknn_engine_close(tknn_engine* engine) { delete engine; }

const char* tknn_engine_device(const tknn_engine* engine) {
  return engine == nullptr ? "" : engine->device.c_str();
}

const char* tknn_engine_note(const tknn_engine* engine) {
  return engine == nullptr ? "" : engine->note.c_str();
}

tknn_status tknn_rows_from_memory(const char* name, const tknn_matrix* matrix, tknn_rows** out) {
  return Guarded([&]() -> absl::Status {
    absl::Status given = CheckGiven({{"out", out}});
    if (!given.ok()) return given;
    *out = nullptr;
    given = CheckGiven({{"matrix", matrix}});
    if (!given.ok()) return given;
    auto rows = std::make_unique<tknn_rows>();
    auto source = tiny_knn::RowsInMemory(name == nullptr ? "rows" : name, *matrix);
    if (!source.ok()) return source.status();
    rows->source = *std::move(source);
    *out = rows.release();
    return absl::OkStatus();
  });
}

tknn_status tknn_rows_open(const char* path, tknn_dtype stored_dtype, tknn_rows** out) {
  return Guarded([&]() -> absl::Status {
    absl::Status given = CheckGiven({{"out", out}});
    if (!given.ok()) return given;
    *out = nullptr;
    given = CheckGiven({{"path", path}});
    if (!given.ok()) return given;
    const auto stored = tiny_knn::StoredDTypeOf(stored_dtype);
    if (!stored.ok()) return stored.status();
    auto rows = std::make_unique<tknn_rows>();
    auto source = tiny_knn::OpenDocs(path, *stored);
    // Truncated before it was opened is no change: it is what the file is.
    if (absl::IsDataLoss(source.status())) {
      return absl::InvalidArgumentError(std::string(source.status().message()));
    }
    if (!source.ok()) return source.status();
    rows->source = std::move(source->rows);
    *out = rows.release();
    return absl::OkStatus();
  });
}

void tknn_rows_close(tknn_rows* rows) { delete rows; }

void tknn_rows_shape(const tknn_rows* rows, int64_t* num_rows, int64_t* dim, tknn_dtype* dtype) {
  if (rows == nullptr) return;
  if (num_rows != nullptr) *num_rows = rows->source->rows();
  if (dim != nullptr) *dim = rows->source->dim();
  if (dtype != nullptr) *dtype = tiny_knn::FromDType(rows->source->dtype());
}

tknn_status tknn_search(tknn_engine* engine, tknn_rows* queries, tknn_rows* docs,
                        const tknn_search_params* params, tknn_control* control, int64_t* indices,
                        void* scores, tknn_report* report) {
  return Guarded([&] {
    return tiny_knn::Search(engine, queries, docs, params, control, {indices, scores}, report);
  });
}

tknn_status tknn_corpus_create(tknn_rows* docs, tknn_metric metric, tknn_dtype compute_dtype,
                               tknn_corpus** out) {
  return Guarded([&]() -> absl::Status {
    absl::Status given = CheckGiven({{"out", out}});
    if (!given.ok()) return given;
    *out = nullptr;
    given = CheckGiven({{"docs", docs}});
    if (!given.ok()) return given;
    tknn_search_params params = {};
    params.metric = metric;
    params.compute_dtype = compute_dtype;
    const auto wanted = tiny_knn::ParamsOf(params);
    if (!wanted.ok()) return wanted.status();
    {
      tiny_knn::Uses uses;
      const absl::Status free = uses.Take("docs", docs->in_use);
      if (!free.ok()) return free;
    }
    auto corpus = std::make_unique<tknn_corpus>();
    auto made =
        tiny_knn::Corpus::Make(std::move(docs->source), {wanted->metric, wanted->compute_dtype});
    if (!made.ok()) return made.status();
    corpus->corpus = *std::move(made);
    delete docs;
    *out = corpus.release();
    return absl::OkStatus();
  });
}

void tknn_corpus_destroy(tknn_corpus* corpus) { delete corpus; }

tknn_status tknn_corpus_search(tknn_corpus* corpus, tknn_engine* engine, tknn_rows* queries,
                               const tknn_search_params* params, tknn_control* control,
                               int64_t* indices, void* scores, tknn_report* report) {
  return Guarded([&] {
    return tiny_knn::SearchCorpus(corpus, engine, queries, params, control, {indices, scores},
                                  report);
  });
}

int64_t tknn_corpus_kept_bytes(const tknn_corpus* corpus) {
  return corpus == nullptr ? 0 : corpus->kept_bytes.load();
}

tknn_status tknn_corpus_forget(tknn_corpus* corpus) {
  return Guarded([&]() -> absl::Status {
    absl::Status status = CheckGiven({{"corpus", corpus}});
    tiny_knn::Uses uses;
    if (status.ok()) status = uses.Take("the corpus", corpus->in_use);
    if (!status.ok()) return status;
    corpus->corpus->Forget();
    corpus->kept_bytes = 0;
    return absl::OkStatus();
  });
}
