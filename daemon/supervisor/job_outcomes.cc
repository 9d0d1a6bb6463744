#include "daemon/supervisor/job_outcomes.h"

#include <algorithm>

#include "daemon/protocol/status_code_name.h"
#include "fmt/format.h"

namespace tiny_knn {

JobOutcome FailedOutcome(absl::StatusCode code, const std::string& why, bool left_temporary) {
  JobOutcome outcome;
  outcome.state = JobState::kFailed;
  outcome.error_code = std::string(StatusCodeName(code));
  outcome.error = why;
  outcome.left_temporary = left_temporary;
  return outcome;
}

JobOutcome CancelledOutcome(bool left_temporary) {
  JobOutcome outcome = FailedOutcome(absl::StatusCode::kCancelled,
                                     "cancelled; no result was written", left_temporary);
  outcome.state = JobState::kCancelled;
  return outcome;
}

int64_t SmallerLimit(int64_t a, int64_t b) {
  if (a <= 0 || b <= 0) return std::max<int64_t>({a, b, 0});
  return std::min(a, b);
}

JobOutcome OutOfTimeOutcome(int64_t own, int64_t daemons, bool left_temporary) {
  const int64_t most = SmallerLimit(own, daemons);
  const std::string why =
      most == own ? fmt::format("ran longer than its timeout of {} s; --timeout allows more", own)
                  : fmt::format(
                        "ran longer than the {} s that this daemon allows a job "
                        "(--max-time); ask for fewer queries or docs in one job",
                        most);
  return FailedOutcome(absl::StatusCode::kDeadlineExceeded, why, left_temporary);
}

JobOutcome FailedStartOutcome(const WorkerEnd& end, int64_t user) {
  using Kind = WorkerEnd::Kind;
  if (end.kind == Kind::kNoSuchUser) {
    return FailedOutcome(absl::StatusCode::kPermissionDenied,
                         fmt::format("this machine knows no user {} (no entry in passwd), so no "
                                     "job can run as that user; ask who runs the machine to add "
                                     "one",
                                     user),
                         false);
  }
  const bool became = end.kind == Kind::kEnded;
  return FailedOutcome(
      became ? absl::StatusCode::kAborted : absl::StatusCode::kPermissionDenied,
      fmt::format("the worker {}{}; submit again, and tell who runs the daemon if that does not "
                  "help",
                  end.why, became ? ", before it could take the job" : ""),
      false);
}

}  // namespace tiny_knn
