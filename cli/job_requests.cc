#include "cli/job_requests.h"

#include <algorithm>
#include <map>
#include <set>
#include <span>
#include <utility>

namespace tiny_knn {
namespace {

using JobsById = std::map<int64_t, JobView>;

// Few enough that their descriptions usually fit a line, and that other clients get their turns.
constexpr size_t kAskedAtOnce = 100;

void Keep(JobsReply reply, JobsById& jobs) {
  for (JobView& job : reply.jobs) jobs.insert_or_assign(job.id, std::move(job));
}

// The ids that `jobs` lacks, each once, in their order.
std::vector<int64_t> Missing(const std::vector<int64_t>& ids, const JobsById& jobs) {
  std::vector<int64_t> missing;
  std::set<int64_t> seen;
  for (const int64_t id : ids) {
    if (!jobs.contains(id) && seen.insert(id).second) missing.push_back(id);
  }
  return missing;
}

// Asks for those that `jobs` lacks.
absl::Status Complete(DaemonClient& client, const std::vector<int64_t>& ids, JobsById& jobs) {
  std::vector<int64_t> missing = Missing(ids, jobs);
  while (!missing.empty()) {
    const std::span<const int64_t> batch(missing.data(), std::min(kAskedAtOnce, missing.size()));
    absl::StatusOr<JobsReply> reply =
        client.Call<JobsReply>(StatusRequest{.jobs = {batch.begin(), batch.end()}});
    if (!reply.ok()) return reply.status();
    const size_t before = jobs.size();
    Keep(*std::move(reply), jobs);
    // Asking again would go on for ever.
    if (jobs.size() == before) {
      return absl::InternalError("the daemon's answer lacks the jobs that it was asked for");
    }
    std::erase_if(missing, [&](int64_t id) { return jobs.contains(id); });
  }
  return absl::OkStatus();
}

std::vector<JobView> InOrder(const std::vector<int64_t>& ids, const JobsById& jobs) {
  std::vector<JobView> ordered;
  ordered.reserve(ids.size());
  for (const int64_t id : ids) ordered.push_back(jobs.at(id));
  return ordered;
}

}  // namespace

absl::StatusOr<std::vector<JobView>> AskForJobs(DaemonClient& client,
                                                const std::vector<int64_t>& ids) {
  JobsById jobs;
  absl::Status status = Complete(client, ids, jobs);
  if (!status.ok()) return status;
  return InOrder(ids, jobs);
}

absl::StatusOr<std::vector<JobView>> CancelJobs(DaemonClient& client,
                                                const std::vector<int64_t>& ids) {
  constexpr size_t kMost = kMostJobsPerRequest;
  const std::vector<int64_t> distinct = Missing(ids, {});
  // The daemon cancels all jobs of a request or none. Where one request does not do, whether all
  // are there is asked first.
  if (distinct.size() > kMost) {
    absl::Status status = AskForJobs(client, distinct).status();
    if (!status.ok()) return status;
  }
  JobsById jobs;
  for (size_t begin = 0; begin < distinct.size(); begin += kMost) {
    const auto batch = std::span(distinct).subspan(begin, std::min(kMost, distinct.size() - begin));
    absl::StatusOr<JobsReply> reply =
        client.Call<JobsReply>(CancelRequest{.jobs = {batch.begin(), batch.end()}});
    if (!reply.ok()) return reply.status();
    Keep(*std::move(reply), jobs);
  }
  absl::Status status = Complete(client, ids, jobs);
  if (!status.ok()) return status;
  return InOrder(ids, jobs);
}

absl::StatusOr<std::vector<JobView>> ListAllJobs(DaemonClient& client, ListRequest request) {
  std::vector<JobView> jobs;
  while (true) {
    absl::StatusOr<JobsReply> page = client.Call<JobsReply>(request);
    if (!page.ok()) return page.status();
    for (JobView& job : page->jobs) jobs.push_back(std::move(job));
    // A page without jobs would ask for itself for ever.
    if (!page->more || page->jobs.empty()) return jobs;
    request.after_job = jobs.back().id;
  }
}

}  // namespace tiny_knn
