#include "cli/job_selection.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <utility>

namespace tiny_knn {

std::vector<JobView> SelectJobs(std::vector<JobView> jobs, std::optional<int> most_finished) {
  const auto unfinished = std::stable_partition(
      jobs.begin(), jobs.end(), [](const JobView& job) { return IsFinished(job.state); });
  std::stable_partition(unfinished, jobs.end(),
                        [](const JobView& job) { return job.state == JobState::kRunning; });
  std::stable_sort(jobs.begin(), unfinished, [](const JobView& a, const JobView& b) {
    return a.finished_at.value_or(0) < b.finished_at.value_or(0);
  });
  const std::ptrdiff_t finished = std::distance(jobs.begin(), unfinished);
  if (most_finished && finished > *most_finished) {
    jobs.erase(jobs.begin(), jobs.begin() + (finished - *most_finished));
  }
  return jobs;
}

}  // namespace tiny_knn
