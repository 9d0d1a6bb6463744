#include "daemon/supervisor/job_views.h"

#include <algorithm>
#include <cstddef>
#include <tuple>
#include <utility>

#include "fmt/format.h"

namespace tiny_knn {
namespace {

// Where the order of the queue is worked out for a single job.
constexpr int64_t kShortQueue = 64;
// Below this progress the model knows better than the search itself.
constexpr double kEnoughProgress = 0.05;
// Where nobody knows yet how long a job will take: all of them the same.
constexpr double kUnknownSeconds = 1;

// How many jobs of each user come before, while the queue is gone through.
class UserCounts {
 public:
  void Add(int64_t uid) {
    const auto [place, is_new] = places_.try_emplace(uid, counts_.size());
    if (is_new) counts_.push_back({.uid = uid});
    ++counts_[place->second].jobs;
  }
  std::vector<JobsOfUser> Most() const {
    std::vector<JobsOfUser> most(std::min(counts_.size(), kMostUsersBefore));
    std::partial_sort_copy(counts_.begin(), counts_.end(), most.begin(), most.end(),
                           [](const JobsOfUser& a, const JobsOfUser& b) {
                             return std::tie(b.jobs, a.uid) < std::tie(a.jobs, b.uid);
                           });
    return most;
  }

 private:
  std::unordered_map<int64_t, size_t> places_;
  std::vector<JobsOfUser> counts_;
};

}  // namespace

JobView RedactedView(const JobView& view) {
  // Named one by one: what is added to a job one day is secret until somebody decides otherwise.
  JobView redacted;
  redacted.redacted = true;
  redacted.id = view.id;
  redacted.uid = view.uid;
  redacted.state = view.state;
  redacted.priority = view.priority;
  redacted.progress = view.progress;
  redacted.submitted_at = view.submitted_at;
  redacted.started_at = view.started_at;
  redacted.finished_at = view.finished_at;
  redacted.elapsed_seconds = view.elapsed_seconds;
  redacted.eta_seconds = view.eta_seconds;
  redacted.jobs_before = view.jobs_before;
  redacted.reason = view.reason;
  return redacted;
}

std::optional<double> JobViews::Estimate(const Job& job, bool may_be_warm) const {
  // The device that it will run on is the one that the last jobs ran on.
  const std::string& device = dispatcher_.last_device();
  if (device.empty()) return std::nullopt;
  bool warm = false;
  if (may_be_warm && dispatcher_.runner().worker_uid() == job.uid) {
    for (const WarmDocsStats& docs : dispatcher_.runner().warm_docs()) {
      warm = warm || docs.docs_path == job.docs_path;
    }
  }
  return dispatcher_.rates().Estimate(device, job.shape, warm);
}

std::optional<double> JobViews::SecondsLeftOfRunning() const {
  const std::optional<int64_t> running = dispatcher_.runner().running_job();
  if (!running) return 0;
  const double ran = dispatcher_.runner().ran_seconds();
  const double progress = dispatcher_.runner().progress();
  if (progress >= kEnoughProgress) return ran * (1 - progress) / progress;
  const Job* job = dispatcher_.queue().Find(*running);
  const std::optional<double> whole =
      job == nullptr ? std::nullopt : Estimate(*job, /*may_be_warm=*/true);
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
  if (before.seconds && before.own_seconds) {
    view.eta_seconds = *before.seconds + *before.own_seconds;
  }
  view.jobs_before = before.users;
  if (dispatcher_.JournalState() != "ok") {
    view.reason = "the journal cannot be written";
  } else if (!dispatcher_.runner().trouble().empty()) {
    view.reason = dispatcher_.runner().trouble();
  } else if (dispatcher_.stopping()) {
    view.reason = "the daemon is stopping";
  } else if (!dispatcher_.runner().MayStart(job.uid)) {
    view.reason = "its user's last workers died; another one is tried soon";
  } else if (before.users.empty()) {
    view.reason = "next";
  }
}

JobViews::BeforeById JobViews::Foresee(const std::vector<int64_t>& jobs) const {
  const JobQueue& queue = dispatcher_.queue();
  BeforeById before;
  for (int64_t id : jobs) {
    const Job* job = queue.Find(id);
    if (job != nullptr && job->state == JobState::kQueued) before.try_emplace(id);
  }
  if (before.empty()) return before;

  UserCounts users;
  std::optional<Scheduler::Running> running;
  std::optional<double> seconds = SecondsLeftOfRunning();
  const std::optional<int64_t> runs = dispatcher_.runner().running_job();
  if (const Job* job = runs ? queue.Find(*runs) : nullptr) {
    users.Add(job->uid);
    running = {job->uid, dispatcher_.runner().ran_seconds() + seconds.value_or(kUnknownSeconds)};
  }
  // A worker ends when another user's turn comes, and what it holds with it.
  bool worker_stays = true;
  const std::optional<int64_t> worker_uid = dispatcher_.runner().worker_uid();
  queue.scheduler().Order(running, [&](int64_t id, int64_t uid) {
    worker_stays = worker_stays && uid == worker_uid;
    const std::optional<double> own = Estimate(*queue.Find(id), worker_stays);
    if (const auto wanted = before.find(id); wanted != before.end()) {
      wanted->second = {users.Most(), seconds, own};
    }
    users.Add(uid);
    seconds = seconds && own ? std::optional<double>(*seconds + *own) : std::nullopt;
    return own.value_or(kUnknownSeconds);
  });
  return before;
}

std::vector<JobView> JobViews::Describe(const std::vector<int64_t>& jobs) const {
  const JobQueue& queue = dispatcher_.queue();
  const BeforeById before = Foresee(jobs);
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
