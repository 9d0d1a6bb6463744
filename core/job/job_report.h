// What is said about a job, wherever it runs and whoever shows it: its plan, what the search
// noticed, and how it went. Texts name files as they were typed and may hold any byte that a file's
// name may: who shows them makes them harmless (core/job/one_line.h). Pure functions, safe to call
// from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/job/job_spec.h"
#include "core/job/run_job.h"
#include "core/search/engine.h"
#include "core/search/search.h"

namespace tiny_knn {

// The plan as --dry-run shows it: files, device, and the lines of Engine::Describe, whose errors it
// returns.
absl::StatusOr<std::vector<std::string>> PlanLines(const JobSpec& spec, const PreparedJob& job,
                                                   const Engine& engine);

// A job that is done.
struct JobReport {
  std::string output_path;
  int64_t num_queries = 0;
  int64_t num_docs = 0;
  int64_t dim = 0;
  int64_t k = 0;
  std::string device;
  double search_seconds = 0;
  double write_seconds = 0;
  SearchReport search;
  int64_t verified_queries = 0;
};

JobReport MakeJobReport(const PreparedJob& job, std::string_view device, const JobResult& result);

// That a default k was reduced, and why; nothing where it was not.
std::optional<std::string> DefaultKNote(const PreparedJob& job);

// What a user should know of a job that is done, one line each: DefaultKNote, rows with NaN or
// infinity, values that became infinite, ties at rank k, what was verified.
std::vector<std::string> JobNotes(const JobSpec& spec, const PreparedJob& job,
                                  const JobReport& report);

// One JSON object, the members that `run --progress json` gives of a job that is done
// (docs/command_line.md). Bytes of names that are no UTF-8 become U+FFFD.
std::string JobReportToJson(const JobReport& report);

// InvalidArgument, in one line, for what is no such object and for a member that is missing or of
// another type. Unknown members are ignored: a newer program may have written it.
absl::StatusOr<JobReport> JobReportFromJson(std::string_view json);

}  // namespace tiny_knn
