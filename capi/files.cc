// The C functions about files: jobs and results.
#include <cstring>
#include <map>
#include <string>
#include <utility>

#include "capi/errors.h"
#include "capi/handles.h"
#include "capi/tiny_knn.h"
#include "core/io/result_file.h"
#include "core/job/job_report.h"
#include "core/job/job_spec.h"
#include "core/job/one_line.h"
#include "core/job/run_job.h"

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
      {"tiny_knn_version", &metadata.tiny_knn_version}};
  for (const auto& [name, text] : texts) {
    if (std::strcmp(name, key) == 0) return text->c_str();
  }
  return nullptr;
}

int64_t tknn_result_batch_size(const tknn_result* result) {
  return result == nullptr ? 0 : result->file.metadata.batch_size;
}
