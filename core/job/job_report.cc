#include "core/job/job_report.h"

#include <algorithm>
#include <cstdint>

#include "core/io/row_source.h"
#include "core/job/verify.h"
#include "core/matrix/dtype.h"
#include "core/search/planner.h"
#include "core/search/search.h"
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

std::string JsonText(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

std::vector<std::string> PlanLines(const JobSpec& spec, const PreparedJob& job,
                                   std::string_view device) {
  std::vector<std::string> lines = {
      fmt::format("{:<14}{}", "queries", SourceText(spec.queries_path, *job.queries)),
      fmt::format("{:<14}{}", "docs", SourceText(spec.docs_path, *job.docs)),
      fmt::format("{:<14}{}", "output", job.output_path),
      fmt::format("{:<14}{}", "device", device)};
  const std::string plan = DescribePlan(job.shape, job.plan);
  for (size_t begin = 0; begin < plan.size();) {
    const size_t end = std::min(plan.find('\n', begin), plan.size());
    lines.push_back(plan.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

std::vector<std::string> JobNotes(const JobSpec& spec, const PreparedJob& job,
                                  const JobResult& result) {
  std::vector<std::string> notes;
  if (job.k_was_reduced) {
    notes.push_back(fmt::format("k={}: fewer docs than the default k={}; --k sets another",
                                job.params.k, kMostDefaultK));
  }
  const SearchReport& report = result.report;
  NoteMatrix(spec.queries_path, report.nonfinite_query_rows, report.infs_made_in_queries,
             spec.compute_dtype, notes);
  NoteMatrix(spec.docs_path, report.nonfinite_doc_rows, report.infs_made_in_docs,
             spec.compute_dtype, notes);
  if (report.queries_with_tie_at_k > 0) {
    notes.push_back(fmt::format(
        "{} a tie across rank {}: of equal scores the lower doc index is kept",
        Count(report.queries_with_tie_at_k, "query has", "queries have"), job.params.k));
  }
  if (result.verified_queries > 0) {
    notes.push_back(fmt::format("verified {} of {} (seed {}): identical to exact arithmetic",
                                result.verified_queries,
                                Count(job.shape.num_queries, "query", "queries"), kVerifySeed));
  }
  return notes;
}

std::string JobReportJson(const PreparedJob& job, std::string_view device,
                          const JobResult& result) {
  const ProblemShape& shape = job.shape;
  const SearchReport& report = result.report;
  return fmt::format(
      "{{\"output_path\":{},\"queries\":{},\"docs\":{},\"dim\":{},\"k\":{},\"device\":\"{}\","
      "\"search_seconds\":{:.6f},\"write_seconds\":{:.6f},\"nonfinite_query_rows\":{},"
      "\"nonfinite_doc_rows\":{},\"infs_made_in_queries\":{},\"infs_made_in_docs\":{},"
      "\"queries_with_tie_at_k\":{},\"verified_queries\":{}}}",
      JsonText(job.output_path), shape.num_queries, shape.num_docs, shape.dim, shape.k, device,
      result.search_seconds, result.write_seconds, report.nonfinite_query_rows,
      report.nonfinite_doc_rows, report.infs_made_in_queries, report.infs_made_in_docs,
      report.queries_with_tie_at_k, result.verified_queries);
}

}  // namespace tiny_knn
