// A job as everybody outside the supervisor sees it: in replies and events, and in `status --json`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"

namespace tiny_knn {

// queued -> running -> done | failed | cancelled; running -> queued when the daemon was stopped or
// died. A queued job may also be cancelled or fail.
enum class JobState { kQueued, kRunning, kDone, kFailed, kCancelled };

std::string_view JobStateName(JobState state);  // "queued", "running", "done", ...
std::optional<JobState> ParseJobState(std::string_view name);
inline bool IsFinished(JobState state) {
  return state != JobState::kQueued && state != JobState::kRunning;
}

// What a job searches: read from the files' headers by the client, for display and ETA only.
struct JobShape {
  int64_t num_queries = 0;
  int64_t num_docs = 0;
  int64_t dim = 0;
  int64_t k = 0;
  int64_t docs_bytes = 0;  // of the docs as stored
  bool operator==(const JobShape&) const = default;
};

// Of one user, among those that will run before a waiting job.
struct JobsOfUser {
  int64_t uid = 0;
  int64_t jobs = 0;  // at least 1
  bool operator==(const JobsOfUser&) const = default;
};
// Users in JobView::jobs_before. With more of them, those with the fewest jobs are left out.
inline constexpr size_t kMostUsersBefore = 32;

struct JobView {
  int64_t id = 0;
  int64_t uid = 0;  // of who submitted it; names are the client's affair
  JobState state = JobState::kQueued;
  int priority = 0;
  int attempt = 0;  // how often it was started
  JobShape shape;
  double progress = 0;  // 0 to 1
  // Seconds since 1970 by the wall clock.
  double submitted_at = 0;
  std::optional<double> started_at;
  std::optional<double> finished_at;
  std::optional<double> elapsed_seconds;  // running or ran, by a clock that never jumps
  std::optional<double> eta_seconds;      // until it is finished, as far as is known
  // What will run before this waiting job as far as can be foreseen, the running job included: the
  // users with most jobs first. Empty where that is not known.
  std::vector<JobsOfUser> jobs_before;
  std::string reason;  // what else it waits for, or what it is doing; one line
  // Somebody else's, of which the asker may know this much only: id, uid, state, priority, times,
  // progress, jobs_before and reason. All else is empty.
  bool redacted = false;
  std::string queries_path;  // as typed
  std::string docs_path;
  std::string output_path;  // absolute
  std::string device;       // "cpu", "cuda"; empty until it ran
  std::string docs;         // "warm", "cold"; empty until it ran
  // A failed or cancelled job's: the name of a status code ("invalid_argument", "not_found", ...;
  // see docs/protocol.md) and the one line that says why.
  std::string error_code;
  std::string error;
  // What the search noticed, as the members of `run --progress json`'s "done" event; a JSON object,
  // or empty until the job is done.
  std::string report_json;
};

// The object that docs/protocol.md calls *job*. Absent numbers and an empty error are null.
nlohmann::json JobViewToJson(const JobView& view);
// InvalidArgument naming the member. Unknown members are ignored: a newer daemon may send more.
absl::StatusOr<JobView> JobViewFromJson(const nlohmann::json& json);

}  // namespace tiny_knn
