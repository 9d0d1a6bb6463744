// What is said of jobs that ended otherwise than by their worker's word.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "daemon/queue/job_queue.h"
#include "daemon/supervisor/worker_process.h"

namespace tiny_knn {

// `left_temporary`: see JobOutcome.
JobOutcome FailedOutcome(absl::StatusCode code, const std::string& why, bool left_temporary);
JobOutcome CancelledOutcome(bool left_temporary);

// The smaller one of two limits, of which 0 is none.
int64_t SmallerLimit(int64_t a, int64_t b);
// Of a job with its own timeout, on a daemon with one for all; seconds, 0: none.
JobOutcome OutOfTimeOutcome(int64_t own, int64_t daemons, bool left_temporary);

// Of a job whose worker ended before it could take the job, for a reason that is `user`'s alone.
JobOutcome FailedStartOutcome(const WorkerEnd& end, int64_t user);

}  // namespace tiny_knn
