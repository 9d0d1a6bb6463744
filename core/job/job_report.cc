#include "core/job/job_report.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "core/io/row_source.h"
#include "core/job/verify.h"
#include "core/matrix/dtype.h"
#include "core/search/planner.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace tiny_knn {
namespace {

std::string Count(int64_t count, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", count, count == 1 ? one : many);
}

std::string SourceText(const std::string& typed, const RowSource& source) {
  return fmt::format("{} [{}, {}] {}", typed, source.rows(), source.dim(),
                     DTypeName(source.dtype()));
}

void NoteMatrix(const std::string& name, int64_t nonfinite_rows, int64_t infs_made, DType dtype,
                std::vector<std::string>& notes) {
  if (nonfinite_rows > 0) {
    notes.push_back(fmt::format("{}: {} with NaN or infinity (NaN scores rank last)", name,
                                Count(nonfinite_rows, "row", "rows")));
  }
  if (infs_made > 0) {
    notes.push_back(fmt::format("{}: {} too large for {} and became infinite", name,
                                Count(infs_made, "value was", "values were"), DTypeName(dtype)));
  }
}

// Every member of the JSON object, in its order: `visit` hears the name and the place of the value.
template <typename Report, typename Visit>
void VisitMembers(Report& report, const Visit& visit) {
  visit("output_path", report.output_path);
  visit("queries", report.num_queries);
  visit("docs", report.num_docs);
  visit("dim", report.dim);
  visit("k", report.k);
  visit("device", report.device);
  visit("search_seconds", report.search_seconds);
  visit("write_seconds", report.write_seconds);
  visit("nonfinite_query_rows", report.search.nonfinite_query_rows);
  visit("nonfinite_doc_rows", report.search.nonfinite_doc_rows);
  visit("infs_made_in_queries", report.search.infs_made_in_queries);
  visit("infs_made_in_docs", report.search.infs_made_in_docs);
  visit("queries_with_tie_at_k", report.search.queries_with_tie_at_k);
  visit("rescored_pairs", report.search.rescored_pairs);
  visit("refined_pairs", report.search.refined_pairs);
  visit("repeated_queries", report.search.repeated_queries);
  visit("verified_queries", report.verified_queries);
}

std::string JsonValue(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}
std::string JsonValue(int64_t count) { return fmt::to_string(count); }
std::string JsonValue(double seconds) { return fmt::format("{:.6f}", seconds); }

bool ReadValue(const nlohmann::json& json, std::string& text) {
  if (json.is_string()) text = json.get<std::string>();
  return json.is_string();
}
bool ReadValue(const nlohmann::json& json, int64_t& count) {
  if (json.is_number_integer()) count = json.get<int64_t>();
  return json.is_number_integer();
}
bool ReadValue(const nlohmann::json& json, double& seconds) {
  if (json.is_number()) seconds = json.get<double>();
  return json.is_number();
}

}  // namespace

absl::StatusOr<std::vector<std::string>> PlanLines(const JobSpec& spec, const PreparedJob& job,
                                                   const Engine& engine) {
  std::vector<std::string> lines = {
      fmt::format("{:<14}{}", "queries", SourceText(spec.queries_path, *job.queries)),
      fmt::format("{:<14}{}", "docs", SourceText(spec.docs_path, *job.docs)),
      fmt::format("{:<14}{}", "output", job.output_path),
      fmt::format("{:<14}{}", "device", engine.device())};
  if (job.part) {
    lines.insert(lines.begin() + 2,
                 fmt::format("{:<14}docs {}:{} of {}", "range", job.part->docs_begin,
                             job.part->docs_end, job.part->num_docs));
  }
  if (!spec.checkpoint_path.empty()) {
    lines.push_back(fmt::format("{:<14}{}, at most every {} s", "checkpoint", spec.checkpoint_path,
                                spec.checkpoint_seconds));
  }
  if (!job.docs_manifest.empty()) {
    for (const DocsFile& file : job.docs_files) {
      lines.push_back(fmt::format("{:<14}{}:{} {}", "docs file", file.begin, file.end, file.name));
    }
  }
  const absl::StatusOr<std::string> plan = engine.Describe(job.shape, job.plan);
  if (!plan.ok()) return plan.status();
  for (size_t begin = 0; begin < plan->size();) {
    const size_t end = std::min(plan->find('\n', begin), plan->size());
    lines.push_back(plan->substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

JobReport MakeJobReport(const PreparedJob& job, std::string_view device, const JobResult& result) {
  return {.output_path = job.output_path,
          .num_queries = job.shape.num_queries,
          .num_docs = job.shape.num_docs,
          .dim = job.shape.dim,
          .k = job.shape.k,
          .device = std::string(device),
          .search_seconds = result.search_seconds,
          .write_seconds = result.write_seconds,
          .search = result.report,
          .verified_queries = result.verified_queries};
}

std::optional<std::string> DefaultKNote(const PreparedJob& job) {
  if (!job.k_was_reduced) return std::nullopt;
  return fmt::format("k={}: fewer docs than the default k={}; --k sets another", job.k_of_all(),
                     kMostDefaultK);
}

std::vector<std::string> JobNotes(const JobSpec& spec, const PreparedJob& job,
                                  const JobReport& report) {
  std::vector<std::string> notes;
  if (std::optional<std::string> note = DefaultKNote(job)) notes.push_back(*std::move(note));
  if (!job.docs_manifest.empty()) {
    const std::vector<DocsFile>& files = job.docs_files;
    notes.push_back(fmt::format(
        "{}: {}, {}{}", spec.docs_path, Count(static_cast<int64_t>(files.size()), "file", "files"),
        files.front().name, files.size() == 1 ? "" : " to " + files.back().name));
  }
  if (job.share_done_before > 0) {
    notes.push_back(fmt::format("went on from the checkpoint {}, at {:.0f}%", spec.checkpoint_path,
                                std::floor(100 * job.share_done_before)));
  }
  if (!job.checkpoint_note.empty()) notes.push_back(job.checkpoint_note);
  const SearchReport& search = report.search;
  NoteMatrix(spec.queries_path, search.nonfinite_query_rows, search.infs_made_in_queries,
             spec.compute_dtype, notes);
  NoteMatrix(spec.docs_path, search.nonfinite_doc_rows, search.infs_made_in_docs,
             spec.compute_dtype, notes);
  if (search.queries_with_tie_at_k > 0) {
    notes.push_back(
        fmt::format("{} a tie across rank {}: of equal scores the lower doc index is kept",
                    Count(search.queries_with_tie_at_k, "query has", "queries have"), report.k));
  }
  if (report.verified_queries > 0) {
    notes.push_back(fmt::format("verified {} of {} (seed {}): identical to exact arithmetic",
                                report.verified_queries,
                                Count(report.num_queries, "query", "queries"), kVerifySeed));
  }
  return notes;
}

std::string JobReportToJson(const JobReport& report) {
  std::string json;
  VisitMembers(report, [&json](const char* name, const auto& value) {
    json += fmt::format("{}\"{}\":{}", json.empty() ? "{" : ",", name, JsonValue(value));
  });
  return json + "}";
}

absl::StatusOr<JobReport> JobReportFromJson(std::string_view json) {
  const nlohmann::json object = nlohmann::json::parse(json, nullptr, false);
  if (!object.is_object()) {
    return absl::InvalidArgumentError("report of the search: expected a JSON object");
  }
  JobReport report;
  absl::Status status;
  VisitMembers(report, [&](const char* name, auto& value) {
    const auto found = object.find(name);
    if ((found == object.end() || !ReadValue(*found, value)) && status.ok()) {
      status = absl::InvalidArgumentError(
          fmt::format("report of the search: '{}' is missing or of another type", name));
    }
  });
  if (!status.ok()) return status;
  return report;
}

}  // namespace tiny_knn
