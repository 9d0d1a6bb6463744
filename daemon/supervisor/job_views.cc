#include "daemon/supervisor/job_views.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "fmt/format.h"

namespace tiny_knn {
namespace {

// Where the order of the queue is worked out for a single job.
constexpr int64_t kShortQueue = 64;
// Below this progress the model knows better than the search itself.
constexpr double kEnoughProgress = 0.05;

}  // namespace

std::optional<double> JobViews::Estimate(const Job& job) const {
  // The device that it will run on is the one that the last jobs ran on.
  const std::string& device = dispatcher_.last_device();
  bool warm = false;
  for (const WarmDocsStats& docs : dispatcher_.runner().warm_docs()) {
    warm = warm || docs.docs_path == job.docs_path;
  }
  if (device.empty()) return std::nullopt;
  return dispatcher_.rates().Estimate(device, job.shape, warm);
}

std::optional<double> JobViews::SecondsLeftOfRunning() const {
  const std::optional<int64_t> running = dispatcher_.runner().running_job();
  if (!running) return 0;
  const double ran = dispatcher_.runner().ran_seconds();
  const double progress = dispatcher_.runner().progress();
  if (progress >= kEnoughProgress) return ran * (1 - progress) / progress;
  const Job* job = dispatcher_.queue().Find(*running);
  const std::optional<double> whole = job == nullptr ? std::nullopt : Estimate(*job);
  if (!whole) return std::nullopt;
  return std::max(0.0, *whole - ran);
}

JobView JobViews::WithoutOrder(const Job& job) const {
  JobView view;
  view.id = job.id;
  view.uid = job.uid;
  view.state = job.state;
  view.priority = job.priority;
  view.attempt = job.attempt;
  view.shape = job.shape;
  view.submitted_at = job.submitted_at;
  view.started_at = job.started_at;
  view.finished_at = job.finished_at;
  view.elapsed_seconds = job.ran_seconds;
  view.queries_path = job.queries_path;
  view.docs_path = job.docs_path;
  view.output_path = job.output_path;
  view.device = job.device;
  view.docs = job.docs;
  view.error_code = job.error_code;
  view.error = job.error;
  view.report_json = job.report_json;
  if (job.state == JobState::kDone) view.progress = 1;
  if (job.state == JobState::kRunning && dispatcher_.runner().running_job() == job.id) {
    view.progress = dispatcher_.runner().progress();
    view.elapsed_seconds = dispatcher_.runner().ran_seconds();
    view.eta_seconds = SecondsLeftOfRunning();
  }
  return view;
}

void JobViews::AddOrder(const Job& job, const Before& before, JobView& view) const {
  const std::optional<double> own = Estimate(job);
  if (before.seconds && own) view.eta_seconds = *before.seconds + *own;
  if (dispatcher_.JournalState() != "ok") {
    view.reason = "the journal cannot be written";
  } else if (!dispatcher_.runner().trouble().empty()) {
    view.reason = dispatcher_.runner().trouble();
  } else if (before.jobs > 0) {
    view.reason = fmt::format("behind {} {}", before.jobs, before.jobs == 1 ? "job" : "jobs");
  } else {
    view.reason = dispatcher_.stopping() ? "the daemon is stopping" : "next";
  }
}

std::vector<JobView> JobViews::Describe(const std::vector<int64_t>& jobs) const {
  const JobQueue& queue = dispatcher_.queue();
  std::unordered_map<int64_t, Before> before;
  const bool any_waits = std::any_of(jobs.begin(), jobs.end(), [&](int64_t id) {
    const Job* job = queue.Find(id);
    return job != nullptr && job->state == JobState::kQueued;
  });
  if (any_waits) {
    Before so_far{dispatcher_.runner().running_job() ? 1 : 0, SecondsLeftOfRunning()};
    for (int64_t id : queue.scheduler().Order()) {
      before.emplace(id, so_far);
      ++so_far.jobs;
      const std::optional<double> own = so_far.seconds ? Estimate(*queue.Find(id)) : std::nullopt;
      so_far.seconds = own ? std::optional<double>(*so_far.seconds + *own) : std::nullopt;
    }
  }
  std::vector<JobView> views;
  for (int64_t id : jobs) {
    const Job* job = queue.Find(id);
    if (job == nullptr) continue;
    views.push_back(WithoutOrder(*job));
    const auto place = before.find(id);
    if (place != before.end()) AddOrder(*job, place->second, views.back());
  }
  return views;
}

std::optional<JobView> JobViews::Brief(int64_t id) const {
  const Job* job = dispatcher_.queue().Find(id);
  if (job == nullptr) return std::nullopt;
  if (job->state == JobState::kQueued && dispatcher_.queue().scheduler().size() <= kShortQueue) {
    return Describe({id}).front();
  }
  JobView view = WithoutOrder(*job);
  if (job->state == JobState::kQueued) {
    view.reason = fmt::format("{} jobs wait", dispatcher_.queue().scheduler().size());
  }
  return view;
}

}  // namespace tiny_knn
