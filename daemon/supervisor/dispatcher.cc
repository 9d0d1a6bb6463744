#include "daemon/supervisor/dispatcher.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <utility>

#include "boost/asio/post.hpp"
#include "boost/system/error_code.hpp"
#include "core/job/job_spec_json.h"
#include "fmt/format.h"
#include "spdlog/spdlog.h"

namespace tiny_knn {
namespace {

using boost::system::error_code;

constexpr std::chrono::seconds kRetry(1);
// Until what jobs say is in their logs' files. Between a job's start and its search, and between
// its end and the answer, nobody waits for these files.
constexpr std::chrono::milliseconds kLogDelay(50);
// How long, and how many jobs, until finished ones are looked at: what clients submit and cancel
// meanwhile takes memory.
constexpr std::chrono::minutes kExpire(10);
constexpr int kExpireAfterJobs = 500;

// As many as the model of a device holds: earlier ones would only take time.
constexpr size_t kJobsToLearnFrom = 64;

// "cuda" is the first device.
std::string DeviceName(const std::string& device) { return device == "cuda" ? "cuda:0" : device; }

// Whether a job that asks for `wanted` may run on a daemon that was given `granted`.
bool DeviceAllows(const std::string& granted, const std::string& wanted) {
  if (granted == "auto" || wanted == "auto" || wanted == "cpu") return true;
  if (granted.starts_with("cuda") && wanted == "cuda") return true;
  return DeviceName(wanted) == DeviceName(granted);
}

// A worker belongs to its user, and every user sees the last device.
bool IsDevice(const std::string& device) {
  return device == "cpu" || device == "cuda" ||
         (device.starts_with("cuda:") && device.size() > 5 && device.size() <= 8 &&
          std::all_of(device.begin() + 5, device.end(),
                      [](char c) { return c >= '0' && c <= '9'; }));
}

}  // namespace

Dispatcher::Dispatcher(boost::asio::io_context& loop, const SupervisorOptions& options,
                       WorkerBinary binary, std::vector<std::string> worker_environment,
                       std::unique_ptr<JobQueue> queue, JobLogs logs, DispatcherListener& listener,
                       WorkerUsers users)
    : loop_(loop),
      options_(options),
      listener_(listener),
      queue_(std::move(queue)),
      logs_(std::move(logs)),
      runner_(loop, options, std::move(binary), std::move(worker_environment),
              {[this](int64_t job) { listener_.OnJobChanged(job); },
               [this](int64_t job, const std::string& line) { Note(job, line); },
               [this](int64_t job, const std::optional<JobOutcome>& outcome, double ran_seconds) {
                 OnEnd(job, outcome, ran_seconds);
               },
               [this](int64_t job, double seconds) { OnLeftoverRemoved(job, seconds); },
               [this] { ScheduleFlush(); }},
              JobRunner::Timing{}, users),
      retry_timer_(loop),
      expire_timer_(loop),
      grace_timer_(loop),
      log_timer_(loop) {}

WorkerUsers Dispatcher::UsersOfThisProcess() {
  return geteuid() == 0 ? WorkerUsers::kEach : WorkerUsers::kOwn;
}

void Dispatcher::Start() {
  std::deque<const Job*> done;
  for (const auto& [id, job] : queue_->jobs()) {
    if (job.leftover_attempt > 0) AddLeftover(job);
    if (job.state != JobState::kDone) continue;
    done.push_back(&job);
    if (done.size() > kJobsToLearnFrom) done.pop_front();
  }
  for (const Job* job : done) Learn(*job);
  rates_.Fit();
  logs_.RemoveUnknown([this](int64_t job) { return queue_->Find(job) != nullptr; });
  Expire();
  ScheduleFlush();
}

void Dispatcher::WhenWritten(Then then) {
  waiting_.push_back(std::move(then));
  ScheduleFlush();
}

void Dispatcher::ScheduleFlush() {
  if (flush_scheduled_) return;
  flush_scheduled_ = true;
  // Behind all that is ready now, so that it shares one transaction.
  boost::asio::post(loop_, [this] {
    flush_scheduled_ = false;
    Flush();
  });
}

void Dispatcher::Flush() {
  if (!blocked_) StartNext();
  const bool writes = queue_->has_changes();
  const JobQueue::FlushResult result = queue_->Flush();
  if (!result.status.ok()) {
    if (!blocked_) spdlog::error("journal: {}", std::string(result.status.message()));
    blocked_ = true;
  } else if (blocked_ && writes) {
    spdlog::info("the journal can be written again");
    blocked_ = false;
    ScheduleFlush();  // for what was not started
  }
  if (queue_->journal().health() == JournalHealth::kFull) RetryLater();
  if (starting_) {
    RunningJob job = *std::move(starting_);
    starting_.reset();
    // Its start may have been undone, or its submission with it.
    const Job* started = queue_->Find(job.id);
    if (started != nullptr && started->state == JobState::kRunning) {
      const int64_t id = job.id;
      const int attempt = job.attempt;
      runner_.Run(std::move(job));  // nothing of it is heard before this turn is over
      spdlog::info("job {}: attempt {} starts", id, attempt);
      Note(id, fmt::format("attempt {} starts", attempt));
    }
  }
  // What `then` changes is for the next turn.
  const std::vector<int64_t> changed = std::exchange(changed_, {});
  for (const Then& then : std::exchange(waiting_, {})) then(result);
  for (int64_t job : changed) listener_.OnJobChanged(job);
  for (const std::string& line : std::exchange(ends_to_log_, {})) spdlog::info("{}", line);
  if (ended_since_expire_ >= kExpireAfterJobs) Expire();
  // Behind the replies and events of this turn.
  if (!rates_.fitted()) boost::asio::post(loop_, [this] { rates_.Fit(); });
  CheckStopped();
}

// Until there is space again, and the reserve is back.
void Dispatcher::RetryLater() {
  if (retrying_) return;
  retrying_ = true;
  retry_timer_.expires_after(kRetry);
  retry_timer_.async_wait([this](const error_code& error) {
    retrying_ = false;
    if (error) return;
    queue_->journal().RestoreReserve();
    // With nothing to write it is the next start that will tell.
    if (!queue_->has_changes()) blocked_ = false;
    Flush();
  });
}

// Now, and again after a while: a job may expire by time alone.
void Dispatcher::Expire() {
  ended_since_expire_ = 0;
  for (int64_t job : queue_->Expire()) logs_.Remove(job);
  if (queue_->has_changes()) ScheduleFlush();
  expire_timer_.expires_after(kExpire);
  expire_timer_.async_wait([this](const error_code& error) {
    if (!error) Expire();
  });
}

std::optional<RunningJob> Dispatcher::Describe(int64_t id, int attempt) {
  const Job& job = *queue_->Find(id);
  absl::StatusOr<JobSpec> spec = JobSpecFromJson(job.spec_json);
  if (!spec.ok()) {
    spdlog::error("job {}: its spec in the journal is damaged: {}", id,
                  std::string(spec.status().message()));
    return std::nullopt;
  }
  return RunningJob{id,
                    job.uid,
                    attempt,
                    queue_->TemporaryTag(id, attempt),
                    job.timeout_seconds,
                    *std::move(spec)};
}

void Dispatcher::AddLeftover(const Job& job) {
  leftovers_[runner_.WorkerUser(job.uid)].push_back(job.id);
}

bool Dispatcher::RemoveALeftover(int64_t user) {
  const auto of_user = leftovers_.find(user);
  while (of_user != leftovers_.end() && !of_user->second.empty()) {
    const int64_t id = of_user->second.back();
    of_user->second.pop_back();
    const Job* job = queue_->Find(id);
    if (job == nullptr || job->leftover_attempt == 0) continue;
    if (std::optional<RunningJob> task = Describe(id, job->leftover_attempt)) {
      if (of_user->second.empty()) leftovers_.erase(of_user);
      runner_.RemoveLeftover(*std::move(task));
      return true;
    }
    queue_->ForgetLeftover(id);
  }
  if (of_user != leftovers_.end()) leftovers_.erase(of_user);
  return false;
}

bool Dispatcher::RemoveAnyLeftover() {
  std::vector<int64_t> users;
  for (const auto& [user, jobs] : leftovers_) {
    if (runner_.MayStart(user)) users.push_back(user);
  }
  return std::any_of(users.begin(), users.end(),
                     [this](int64_t user) { return RemoveALeftover(user); });
}

void Dispatcher::StartNext() {
  if (stopping_ || starting_ || !runner_.ready()) return;
  const Scheduler::MayRun may_run = [this](int64_t uid) { return runner_.MayStart(uid); };
  while (std::optional<int64_t> next = queue_->scheduler().Next(may_run)) {
    // First, so that no temporary file outlives the job's next attempt. In the time of the user who
    // left them; other users do not wait for that.
    if (RemoveALeftover(runner_.WorkerUser(queue_->Find(*next)->uid))) return;
    queue_->Start(*next);
    changed_.push_back(*next);
    starting_ = Describe(*next, queue_->Find(*next)->attempt);
    if (starting_) return;
    JobOutcome outcome;
    outcome.state = JobState::kFailed;
    outcome.error_code = "data_loss";
    outcome.error = "its spec in the journal is damaged; submit it again";
    queue_->Finish(*next, outcome, 0);
  }
  RemoveAnyLeftover();
}

std::variant<JobQueue::Submitted, ErrorReply> Dispatcher::Submit(int64_t uid,
                                                                 const SubmitRequest& request) {
  if (stopping_) {
    return ErrorReply{ErrorCode::kStopping,
                      "the daemon is about to end; submit again when it has been started again"};
  }
  if (draining_) {
    return ErrorReply{ErrorCode::kDraining,
                      "the daemon takes no new jobs (drain); 'tiny-knn drain --undo' allows them"};
  }
  if (!DeviceAllows(options_.device, request.spec.device)) {
    return ErrorReply{
        ErrorCode::kNotAllowed,
        fmt::format("device '{}' is not this daemon's, which was started with --device "
                    "{}; give auto, cpu or {}",
                    request.spec.device, options_.device, options_.device)};
  }
  absl::StatusOr<std::string> spec = JobSpecToJson(request.spec);
  if (!spec.ok()) return ErrorReply{ErrorCode::kBadRequest, std::string(spec.status().message())};
  std::variant<JobQueue::Submitted, ErrorReply> submitted =
      queue_->Submit(uid, request, *std::move(spec));
  if (const auto* job = std::get_if<JobQueue::Submitted>(&submitted)) {
    if (!job->existed) changed_.push_back(job->job);
  }
  ScheduleFlush();
  return submitted;
}

void Dispatcher::Cancel(int64_t id) {
  const Job* job = queue_->Find(id);
  if (job == nullptr || IsFinished(job->state)) return;
  if (job->state == JobState::kRunning) {
    // Between its mark as running and its start there is only a flush, which is waited for.
    WhenWritten([this, id](const JobQueue::FlushResult&) {
      if (runner_.running_job() == id) {
        runner_.Cancel();
      } else {
        const Job* now = queue_->Find(id);
        if (now != nullptr && now->state == JobState::kQueued) Cancel(id);
      }
    });
    return;
  }
  JobOutcome outcome;
  outcome.state = JobState::kCancelled;
  outcome.error_code = "cancelled";
  outcome.error = "cancelled before it ran";
  queue_->Finish(id, outcome, 0);
  ++ended_since_expire_;
  changed_.push_back(id);
  ScheduleFlush();
}

int64_t Dispatcher::Clean(std::optional<int64_t> uid) {
  const std::vector<int64_t> removed = queue_->Clean(uid);
  for (int64_t job : removed) logs_.Remove(job);
  ScheduleFlush();
  return static_cast<int64_t>(removed.size());
}

void Dispatcher::Note(int64_t job, const std::string& line) {
  logs_.Append(job, line);
  if (log_scheduled_) return;
  log_scheduled_ = true;
  log_timer_.expires_after(kLogDelay);
  log_timer_.async_wait([this](const error_code& error) {
    log_scheduled_ = false;
    if (!error) logs_.Write();
  });
}

void Dispatcher::Learn(const Job& job) {
  if (job.ran_seconds && IsDevice(job.device)) {
    last_device_ = job.device;
    rates_.Learn(job.device, job.shape, job.docs == "warm", *job.ran_seconds);
  }
}

void Dispatcher::OnEnd(int64_t id, const std::optional<JobOutcome>& outcome, double ran_seconds) {
  const Job* job = queue_->Find(id);
  if (job == nullptr || job->state != JobState::kRunning) return;
  changed_.push_back(id);
  if (!outcome) {
    spdlog::info("job {}: queued again", id);
    Note(id, "queued again: it was interrupted before it had finished");
    queue_->Requeue(id, /*left_temporary=*/true);
    queue_->Charge(job->uid, ran_seconds);
    AddLeftover(*job);
  } else {
    queue_->Finish(id, *outcome, ran_seconds);
    ++ended_since_expire_;
    if (outcome->left_temporary) AddLeftover(*job);
    if (outcome->state == JobState::kDone) Learn(*queue_->Find(id));
    // Errors name files. Those of other users are not for whoever reads the system's messages.
    const std::string& why = job->uid == geteuid() ? outcome->error : outcome->error_code;
    ends_to_log_.push_back(fmt::format("job {}: {}{}{}", id, JobStateName(outcome->state),
                                       why.empty() ? "" : ": ", why));
    Note(id, outcome->error.empty()
                 ? fmt::format("{} after {:.3f} s", JobStateName(outcome->state), ran_seconds)
                 : fmt::format("{}: {}", JobStateName(outcome->state), outcome->error));
  }
  ScheduleFlush();
}

void Dispatcher::OnLeftoverRemoved(int64_t id, double seconds) {
  if (const Job* job = queue_->Find(id)) queue_->Charge(job->uid, seconds);
  queue_->ForgetLeftover(id);
  ScheduleFlush();
}

void Dispatcher::SetDraining(bool draining) {
  draining_ = draining;
  ScheduleFlush();
}

void Dispatcher::Stop(bool now) {
  const bool again = std::exchange(stopping_, true);
  if (now || !runner_.running_job()) {
    runner_.Abandon();
  } else if (!again) {
    grace_timer_.expires_after(options_.grace);
    grace_timer_.async_wait([this](const error_code& error) {
      if (error) return;
      spdlog::info("job {} did not finish in time", runner_.running_job().value_or(0));
      runner_.Abandon();
    });
  }
  ScheduleFlush();
}

void Dispatcher::CheckStopped() {
  if (stopped_ || starting_ || runner_.running_job()) return;
  const bool drained =
      draining_ && queue_->scheduler().size() == 0 && leftovers_.empty() && !runner_.removing();
  if (!stopping_ && !drained) return;
  stopping_ = true;
  // What ended is to be written down before we go, unless the disk does not let us.
  if (queue_->has_changes() && queue_->journal().health() == JournalHealth::kOk) {
    return ScheduleFlush();
  }
  if (runner_.has_worker()) {
    runner_.Abandon();  // on_ready comes back here
    return;
  }
  stopped_ = true;
  retry_timer_.cancel();
  expire_timer_.cancel();
  grace_timer_.cancel();
  log_timer_.cancel();
  logs_.Write();
  listener_.OnStopped();
}

std::string Dispatcher::JournalState() const {
  if (const std::optional<ErrorReply> refusal = queue_->Refusal()) return refusal->message;
  return "ok";
}

}  // namespace tiny_knn
