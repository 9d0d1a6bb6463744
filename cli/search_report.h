// What is said of a search, before and after it: the same words whether this process or a daemon
// ran it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "cli/console.h"
#include "core/job/run_job.h"
#include "core/matrix/dtype.h"
#include "core/search/engine.h"
#include "core/search/search.h"

namespace tiny_knn {

// A finished search.
struct SearchSummary {
  std::string queries_name, docs_name;  // as typed
  std::string output_path;              // as it is printed
  int64_t num_queries = 0, num_docs = 0, dim = 0, k = 0;
  DType compute_dtype = DType::kFloat32;
  std::string device;
  std::string docs;  // "warm" or "cold" in a daemon, else empty
  double search_seconds = 0;
  double write_seconds = 0;
  SearchReport report;
  bool knows_rescored_pairs = true;  // a daemon's report may leave them out
  int64_t verified_queries = 0;
};

// Fills in what a daemon's report says: the members of the "done" event of `run --progress json`.
// InvalidArgument for what is no such object. Never throws.
absl::Status ReadReport(std::string_view report_json, SearchSummary& summary);

// The notes and the line at the end, on standard error.
void SaySummary(const SearchSummary& summary, Console& console);

// Says that the default k was not to be had, if so.
void NoteDefaultK(const PreparedJob& job, Console& console);

// The result's path on standard output: byte for byte for a program, harmless on a terminal.
void PrintPath(const std::string& path, Console& console);

// The plan, line by line, for --dry-run and --verbose.
std::string PlanText(const PreparedJob& job, const Engine& engine);

// Prints the plan on standard output, as --dry-run does.
void PrintPlan(const PreparedJob& job, const Engine& engine, Console& console);

}  // namespace tiny_knn
