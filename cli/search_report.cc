#include "cli/search_report.h"

#include <unistd.h>

#include <algorithm>

#include "cli/text.h"
#include "core/job/verify.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace tiny_knn {
namespace {

constexpr int64_t kDefaultK = 2000;

std::string ShapeText(const RowSource& source) {
  return fmt::format("{} [{}, {}] {}", source.name(), source.rows(), source.dim(),
                     DTypeName(source.dtype()));
}

void NoteMatrix(std::string_view name, int64_t nonfinite_rows, int64_t infs_made, DType dtype,
                Console& console) {
  if (nonfinite_rows > 0) {
    console.Note(fmt::format("{}: {} with NaN or infinity (NaN scores rank last)", name,
                             Plural(nonfinite_rows, "row", "rows")));
  }
  if (infs_made > 0) {
    console.Note(fmt::format("{}: {} too large for {} and became infinite", name,
                             Plural(infs_made, "value was", "values were"), DTypeName(dtype)));
  }
}

void NoteReport(const SearchSummary& summary, Console& console) {
  const SearchReport& report = summary.report;
  NoteMatrix(summary.queries_name, report.nonfinite_query_rows, report.infs_made_in_queries,
             summary.compute_dtype, console);
  NoteMatrix(summary.docs_name, report.nonfinite_doc_rows, report.infs_made_in_docs,
             summary.compute_dtype, console);
  if (report.queries_with_tie_at_k > 0) {
    console.Note(fmt::format("{} a tie across rank {}: of equal scores the lower doc index is kept",
                             Plural(report.queries_with_tie_at_k, "query has", "queries have"),
                             summary.k));
  }
  if (summary.verified_queries > 0) {
    console.Note(fmt::format("verified {} of {} (seed {}): identical to exact arithmetic",
                             summary.verified_queries,
                             Plural(summary.num_queries, "query", "queries"), kVerifySeed));
  }
}

// A member of `json` as it is; where it is missing or of another kind, `value` stays.
void ReadCount(const nlohmann::json& json, const char* name, int64_t* value) {
  const auto found = json.find(name);
  if (found != json.end() && found->is_number_integer()) *value = found->get<int64_t>();
}
void ReadSeconds(const nlohmann::json& json, const char* name, double* value) {
  const auto found = json.find(name);
  if (found != json.end() && found->is_number()) *value = found->get<double>();
}

}  // namespace

absl::Status ReadReport(std::string_view report_json, SearchSummary& summary) {
  const nlohmann::json json = nlohmann::json::parse(report_json, nullptr, false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError("the daemon's report of the search is no JSON object");
  }
  SearchReport& report = summary.report;
  ReadCount(json, "nonfinite_query_rows", &report.nonfinite_query_rows);
  ReadCount(json, "nonfinite_doc_rows", &report.nonfinite_doc_rows);
  ReadCount(json, "infs_made_in_queries", &report.infs_made_in_queries);
  ReadCount(json, "infs_made_in_docs", &report.infs_made_in_docs);
  ReadCount(json, "queries_with_tie_at_k", &report.queries_with_tie_at_k);
  ReadCount(json, "rescored_pairs", &report.rescored_pairs);
  summary.knows_rescored_pairs = json.contains("rescored_pairs");
  ReadCount(json, "verified_queries", &summary.verified_queries);
  ReadSeconds(json, "search_seconds", &summary.search_seconds);
  ReadSeconds(json, "write_seconds", &summary.write_seconds);
  return absl::OkStatus();
}

void SaySummary(const SearchSummary& summary, Console& console) {
  NoteReport(summary, console);
  const SearchReport& report = summary.report;
  const double rate =
      static_cast<double>(summary.num_queries) / std::max(summary.search_seconds, 1e-9);
  const std::string rescored =
      summary.knows_rescored_pairs
          ? fmt::format("{} pairs rescored exactly, ", report.rescored_pairs)
          : "";
  console.Detail(fmt::format("{}{} to write", rescored, FormatSeconds(summary.write_seconds)));
  std::string json = fmt::format(
      "{{\"event\":\"done\",\"output_path\":{},\"queries\":{},\"docs\":{},\"dim\":{},"
      "\"k\":{},\"device\":{},\"search_seconds\":{:.6f},\"write_seconds\":{:.6f},"
      "\"nonfinite_query_rows\":{},\"nonfinite_doc_rows\":{},"
      "\"infs_made_in_queries\":{},\"infs_made_in_docs\":{},"
      "\"queries_with_tie_at_k\":{},\"verified_queries\":{}}}",
      JsonString(summary.output_path), summary.num_queries, summary.num_docs, summary.dim,
      summary.k, JsonString(summary.device), summary.search_seconds, summary.write_seconds,
      report.nonfinite_query_rows, report.nonfinite_doc_rows, report.infs_made_in_queries,
      report.infs_made_in_docs, report.queries_with_tie_at_k, summary.verified_queries);
  console.Summary(
      fmt::format("{} x {}, dim {}, k={}, {}: {}, {} queries/s{}",
                  Plural(summary.num_queries, "query", "queries"),
                  Plural(summary.num_docs, "doc", "docs"), summary.dim, summary.k, summary.device,
                  FormatSeconds(summary.search_seconds), FormatRate(rate),
                  summary.docs.empty() ? "" : fmt::format(", docs {}", summary.docs)),
      json);
}

void NoteDefaultK(const PreparedJob& job, Console& console) {
  if (!job.k_was_reduced) return;
  console.Note(fmt::format("k={}: fewer docs than the default k={}; --k sets another", job.params.k,
                           kDefaultK));
}

void PrintPath(const std::string& path, Console& console) {
  console.Out((isatty(STDOUT_FILENO) != 0 ? OneLine(path) : path) + "\n");
}

std::string PlanText(const PreparedJob& job, const Engine& engine) {
  return fmt::format("queries       {}\ndocs          {}\noutput        {}\ndevice        {}\n{}",
                     OneLine(ShapeText(*job.queries)), OneLine(ShapeText(*job.docs)),
                     OneLine(job.output_path), engine.device(), DescribePlan(job.shape, job.plan));
}

void PrintPlan(const PreparedJob& job, const Engine& engine, Console& console) {
  const std::string plan = PlanText(job, engine);
  NoteDefaultK(job, console);
  console.Out(plan);
  if (plan.empty() || plan.back() != '\n') console.Out("\n");
}

}  // namespace tiny_knn
