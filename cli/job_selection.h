// Which of the daemon's jobs `tiny-knn status` shows. Pure.
#pragma once

#include <optional>
#include <vector>

#include "daemon/protocol/job_view.h"

namespace tiny_knn {

// All unfinished jobs and the last `most_finished` finished ones (nothing: all), by when they were
// finished. In this order: finished, running, queued; within each as they came.
std::vector<JobView> SelectJobs(std::vector<JobView> jobs, std::optional<int> most_finished);

}  // namespace tiny_knn
