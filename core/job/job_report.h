// What is said about a job wherever it runs: its plan, what the search noticed, and how it went.
// Texts name files as they were typed and may hold any byte that a file's name may: who shows them
// makes them harmless. Pure functions, safe to call from any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/job/job_spec.h"
#include "core/job/run_job.h"

namespace tiny_knn {

// The plan as --dry-run shows it: files, device, and the lines of DescribePlan. `device`: of the
// engine.
std::vector<std::string> PlanLines(const JobSpec& spec, const PreparedJob& job,
                                   std::string_view device);

// What a user should know of a job that is done, one line each: a default k that was reduced, rows
// with NaN or infinity, values that became infinite, ties at rank k, what was verified.
std::vector<std::string> JobNotes(const JobSpec& spec, const PreparedJob& job,
                                  const JobResult& result);

// One JSON object, the members that `run --progress json` gives of a job that is done
// (docs/command_line.md). Bytes of names that are no UTF-8 become U+FFFD.
std::string JobReportJson(const PreparedJob& job, std::string_view device, const JobResult& result);

}  // namespace tiny_knn
