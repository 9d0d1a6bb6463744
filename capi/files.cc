// The C functions about files: jobs and results.
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "capi/errors.h"
#include "capi/handles.h"
#include "capi/tiny_knn.h"
#include "core/io/result_file.h"
#include "core/job/docs_range.h"
#include "core/job/job_report.h"
#include "core/job/job_spec.h"
#include "core/job/merge_results.h"
#include "core/job/one_line.h"
#include "core/job/run_job.h"
#include "fmt/format.h"

struct tknn_job {
  std::string output_path;
  std::string report_json;
  std::string notes;
};

struct tknn_result {
  tiny_knn::ResultFile file;
};

namespace tiny_knn {
namespace {

std::string TextOf(const char* text) { return text == nullptr ? std::string() : text; }

absl::StatusOr<JobSpec> SpecOf(const tknn_job_params& params) {
  const absl::StatusOr<SearchParams> search = ParamsOf(params.search);
  if (!search.ok()) return search.status();
  const absl::StatusOr<SearchLimits> limits = LimitsOf(params.search);
  if (!limits.ok()) return limits.status();
  const auto stored = StoredDTypeOf(params.stored_dtype);
  if (!stored.ok()) return stored.status();
  JobSpec spec;
  spec.queries_path = TextOf(params.queries_path);
  spec.docs_path = TextOf(params.docs_path);
  spec.output_path = TextOf(params.output_path);
  if (search->k != 0) spec.k = search->k;
  spec.metric = search->metric;
  spec.compute_dtype = search->compute_dtype;
  spec.input_dtype = *stored;
  if (limits->batch_size != 0) spec.batch_size = limits->batch_size;
  spec.exclude_self = search->exclude_self;
  if (params.device != nullptr) spec.device = params.device;
  spec.gpu_memory_bytes = params.gpu_memory_bytes;
  spec.threads = limits->threads;
  spec.memory_limit_bytes = limits->memory_limit_bytes;
  spec.verify_queries = params.verify_queries;
  if (params.docs_begin != 0 || params.docs_end != 0) {
    if (params.docs_begin < 0 || (params.docs_end != 0 && params.docs_end <= params.docs_begin)) {
      return absl::InvalidArgumentError(
          fmt::format("docs_begin={}, docs_end={}: must be at least 0 and in ascending order",
                      params.docs_begin, params.docs_end));
    }
    spec.docs_range = DocsRange{params.docs_begin, std::nullopt};
    if (params.docs_end != 0) spec.docs_range->end = params.docs_end;
  }
  spec.checkpoint_path = TextOf(params.checkpoint_path);
  if (params.checkpoint_seconds != 0) {
    spec.checkpoint_seconds = params.checkpoint_seconds == -1 ? 0 : params.checkpoint_seconds;
  }
  return spec;
}

absl::Status RunTheJob(const tknn_job_params* params, tknn_control* control, tknn_job** out) {
  absl::Status given = CheckGiven({{"out", out}});
  if (!given.ok()) return given;
  *out = nullptr;
  given = CheckGiven({{"params", params}});
  if (!given.ok()) return given;
  given = CheckGiven({{"queries_path", params->queries_path}, {"docs_path", params->docs_path}});
  if (!given.ok()) return given;
  const absl::StatusOr<JobSpec> spec = SpecOf(*params);
  if (!spec.ok()) return spec.status();
  absl::StatusOr<PreparedJob> prepared = PrepareJob(*spec);
  if (!prepared.ok()) return AsBadInput(prepared.status());
  const absl::StatusOr<OpenedEngine> opened = OpenEngine({spec->device, spec->gpu_memory_bytes});
  if (!opened.ok()) return opened.status();
  if (control != nullptr) {
    control->Report(0, prepared->shape.num_queries * prepared->shape.num_docs);
  }
  const absl::StatusOr<JobResult> result =
      RunJob(*spec, *prepared, *opened->engine, {.progress = control});
  if (!result.ok()) return result.status();
  auto job = std::make_unique<tknn_job>();
  job->output_path = prepared->output_path;
  const JobReport report = MakeJobReport(*prepared, opened->engine->device(), *result);
  job->report_json = JobReportToJson(report);
  for (const std::string& note : JobNotes(*spec, *prepared, report)) {
    if (!job->notes.empty()) job->notes += '\n';
    job->notes += OneLine(note);
  }
  *out = job.release();
  return absl::OkStatus();
}

}  // namespace
}  // namespace tiny_knn

using tiny_knn::CheckGiven;
using tiny_knn::Guarded;

tknn_status tknn_job_run(const tknn_job_params* params, tknn_control* control, tknn_job** out) {
  return Guarded([&] { return tiny_knn::RunTheJob(params, control, out); });
}

void tknn_job_destroy(tknn_job* job) { delete job; }

const char* tknn_job_output_path(const tknn_job* job) {
  return job == nullptr ? "" : job->output_path.c_str();
}

const char* tknn_job_report_json(const tknn_job* job) {
  return job == nullptr ? "" : job->report_json.c_str();
}

const char* tknn_job_notes(const tknn_job* job) { return job == nullptr ? "" : job->notes.c_str(); }

tknn_status tknn_result_load(const char* path, tknn_result** out) {
  return Guarded([&]() -> absl::Status {
    absl::Status given = CheckGiven({{"out", out}});
    if (!given.ok()) return given;
    *out = nullptr;
    given = CheckGiven({{"path", path}});
    if (!given.ok()) return given;
    auto result = std::make_unique<tknn_result>();
    absl::StatusOr<tiny_knn::ResultFile> file = tiny_knn::ReadResult(path);
    if (!file.ok()) return file.status();
    result->file = *std::move(file);
    *out = result.release();
    return absl::OkStatus();
  });
}

void tknn_result_destroy(tknn_result* result) { delete result; }

void tknn_result_shape(const tknn_result* result, int64_t* num_queries, int64_t* k,
                       tknn_dtype* score_dtype) {
  if (result == nullptr) return;
  const tiny_knn::ResultMetadata& metadata = result->file.metadata;
  if (num_queries != nullptr) *num_queries = metadata.num_queries;
  if (k != nullptr) *k = metadata.k;
  if (score_dtype != nullptr) *score_dtype = tiny_knn::FromDType(metadata.score_dtype);
}

void tknn_result_copy(const tknn_result* result, int64_t* indices, void* scores) {
  if (result == nullptr) return;
  const tiny_knn::ResultFile& file = result->file;
  if (indices != nullptr && !file.indices.empty()) {
    std::memcpy(indices, file.indices.data(), file.indices.size() * sizeof(int64_t));
  }
  if (scores == nullptr || file.scores.empty()) return;
  if (file.metadata.score_dtype == tiny_knn::DType::kFloat64) {
    std::memcpy(scores, file.scores.data(), file.scores.size() * sizeof(double));
    return;
  }
  auto* narrow = static_cast<float*>(scores);
  for (const double score : file.scores) *narrow++ = static_cast<float>(score);
}

const char* tknn_result_text(const tknn_result* result, const char* key) {
  if (result == nullptr || key == nullptr) return nullptr;
  const tiny_knn::ResultMetadata& metadata = result->file.metadata;
  const std::pair<const char*, const std::string*> texts[] = {
      {"queries_path", &metadata.queries_path},
      {"docs_path", &metadata.docs_path},
      {"dtype", &metadata.dtype},
      {"device", &metadata.device},
      {"metric", &metadata.metric},
      {"tiny_knn_version", &metadata.tiny_knn_version},
      {"docs_manifest", &metadata.docs_manifest},
      {"queries_fingerprint", &metadata.part.queries_fingerprint},
      {"docs_fingerprint", &metadata.part.docs_fingerprint}};
  for (const auto& [name, text] : texts) {
    if (std::strcmp(name, key) == 0) return text->c_str();
  }
  return nullptr;
}

int64_t tknn_result_batch_size(const tknn_result* result) {
  return result == nullptr ? 0 : result->file.metadata.batch_size;
}

int32_t tknn_result_exclude_self(const tknn_result* result) {
  return result != nullptr && result->file.metadata.exclude_self ? 1 : 0;
}

void tknn_result_part(const tknn_result* result, int64_t* docs_begin, int64_t* docs_end,
                      int64_t* num_docs, int64_t* k_wanted) {
  if (result == nullptr) return;
  const tiny_knn::ResultPart& part = result->file.metadata.part;
  if (docs_begin != nullptr) *docs_begin = part.docs_begin;
  if (docs_end != nullptr) *docs_end = part.docs_end;
  if (num_docs != nullptr) *num_docs = part.num_docs;
  if (k_wanted != nullptr) *k_wanted = part.k_wanted;
}

tknn_status tknn_merge(const char* const* part_paths, int64_t num_parts, const char* output_path,
                       int32_t partial, tknn_control* control) {
  return Guarded([&]() -> absl::Status {
    absl::Status given = CheckGiven({{"part_paths", part_paths}, {"output_path", output_path}});
    std::vector<std::string> parts;
    for (int64_t i = 0; given.ok() && i < num_parts; ++i) {
      given = CheckGiven({{"a part's path", part_paths[i]}});
      if (given.ok()) parts.emplace_back(part_paths[i]);
    }
    if (!given.ok()) return given;
    return tiny_knn::AsBadInput(
        tiny_knn::MergeResults(parts, output_path, {.partial = partial != 0, .progress = control})
            .status());
  });
}
