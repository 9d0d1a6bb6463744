#include "daemon/supervisor/job_runner.h"

#include <unistd.h>

#include <algorithm>
#include <utility>
#include <variant>

#include "boost/asio/post.hpp"
#include "boost/system/error_code.hpp"
#include "daemon/protocol/build_id.h"
#include "daemon/protocol/status_code_name.h"
#include "daemon/supervisor/job_outcomes.h"
#include "fmt/format.h"
#include "spdlog/spdlog.h"

namespace tiny_knn {
namespace {

using boost::system::error_code;

// Whom failures hold up that are nobody's in particular.
constexpr int64_t kEverybody = -1;

}  // namespace

JobRunner::JobRunner(boost::asio::io_context& loop, const SupervisorOptions& options,
                     WorkerBinary binary, std::vector<std::string> environment, Callbacks callbacks,
                     const Timing& timing, WorkerUsers users)
    : loop_(loop),
      options_(options),
      binary_(std::move(binary)),
      environment_(std::move(environment)),
      callbacks_(std::move(callbacks)),
      timing_(timing),
      users_(users),
      own_user_(geteuid()),
      end_timer_(loop),
      silence_timer_(loop),
      idle_timer_(loop),
      backoff_timer_(loop),
      backoff_(timing.first_backoff, timing.longest_backoff) {}

JobRunner::~JobRunner() {
  if (worker_ != nullptr) worker_->Disown();
}

bool JobRunner::ready() const {
  return !task_ && !releasing_ && backoff_.MayStart(kEverybody, Clock::now());
}

bool JobRunner::MayStart(int64_t uid) const {
  return backoff_.MayStart(WorkerUser(uid), Clock::now());
}

int64_t JobRunner::WorkerUser(int64_t uid) const {
  return users_ == WorkerUsers::kOwn ? own_user_ : uid;
}

std::optional<int64_t> JobRunner::worker_uid() const {
  if (worker_ == nullptr || replacing_ || releasing_) return std::nullopt;
  return worker_uid_;
}

std::optional<int64_t> JobRunner::running_job() const {
  if (!task_ || removing_) return std::nullopt;
  return task_->id;
}

double JobRunner::ran_seconds() const {
  return task_ ? std::chrono::duration<double>(Clock::now() - started_).count() : 0;
}

void JobRunner::Run(RunningJob job) {
  task_ = std::move(job);
  removing_ = false;
  Begin();
}

void JobRunner::RemoveLeftover(RunningJob job) {
  task_ = std::move(job);
  removing_ = true;
  Begin();
}

void JobRunner::Begin() {
  idle_timer_.cancel();
  ending_ = Ending::kNone;
  progress_ = 0;
  started_ = Clock::now();
  const int64_t user = WorkerUser(task_->uid);
  if (worker_ != nullptr && !replacing_ && worker_uid_ != user) {
    // It does nothing, so nothing is lost; it is not asked, because its user may have stopped it.
    replacing_ = true;
    warm_docs_.clear();
    worker_->Discard(fmt::format("has made room for one of user {}", user));
  }
  if (replacing_) return;  // OnExit goes on, and the clock starts then
  ArmEndTimer();
  untried_ = worker_ != nullptr && greeted_;
  if (worker_ == nullptr && !StartWorker(user)) return;
  Watch();
  if (greeted_) SendTask();  // else OnHello goes on
}

void JobRunner::ArmEndTimer() {
  const int64_t most_seconds = SmallerLimit(task_->timeout_seconds, options_.max_seconds);
  if (most_seconds > 0 && !removing_) {
    end_timer_.expires_after(std::chrono::seconds(most_seconds));
    end_timer_.async_wait([this](const error_code& error) {
      if (!error) AskToEnd(Ending::kOutOfTime);
    });
  } else if (removing_) {
    // A folder that does not answer must not hold up the queue.
    end_timer_.expires_after(timing_.removal);
    end_timer_.async_wait([this](const error_code& error) {
      if (!error && removing_ && worker_ != nullptr) {
        worker_->Kill("could not remove a temporary file in time and was killed");
      }
    });
  }
}

bool JobRunner::StartWorker(int64_t user) {
  greeted_ = false;
  WorkerStart start{.device = options_.device,
                    .environment = environment_,
                    .user = std::nullopt,
                    .dying = timing_.dying,
                    .kill = timing_.kill};
  if (users_ == WorkerUsers::kEach && user != own_user_) start.user = static_cast<uid_t>(user);
  absl::StatusOr<std::shared_ptr<WorkerProcess>> worker =
      WorkerProcess::Start(loop_, binary_, start,
                           {[this](FromWorker message) { OnMessage(std::move(message)); },
                            [this](const WorkerEnd& end) { OnExit(end); }});
  if (!worker.ok()) {
    boost::asio::post(loop_, [this, why = std::string(worker.status().message())] {
      OnWorkerDied({WorkerEnd::Kind::kNotStarted, why});
    });
    return false;
  }
  worker_ = *std::move(worker);
  worker_uid_ = user;
  if (users_ == WorkerUsers::kOwn) {
    spdlog::info("worker {} started", worker_->pid());
  } else {
    spdlog::info("worker {} of user {} started", worker_->pid(), user);
  }
  return true;
}

void JobRunner::SendTask() {
  if (removing_) {
    worker_->Send(WorkerRemove{task_->id, task_->temporary_tag, task_->spec});
  } else {
    worker_->Send(WorkerRun{task_->id, task_->attempt, task_->temporary_tag,
                            options_.max_memory_bytes, options_.max_warm_bytes,
                            options_.most_threads, task_->spec});
  }
}

void JobRunner::Watch() {
  silence_timer_.expires_after(timing_.silence_check);
  silence_timer_.async_wait([this](const error_code& error) {
    if (error || worker_ == nullptr || !task_) return;
    // If we were stopped ourselves, what it said in the meantime is still to be read.
    if (worker_->silence() > timing_.silence && !worker_->has_unread()) {
      worker_->Kill(fmt::format("was silent for {} s and was killed",
                                std::chrono::duration<double>(timing_.silence).count()));
    }
    Watch();
  });
}

void JobRunner::OnMessage(FromWorker message) {
  if (const auto* hello = std::get_if<WorkerHello>(&message)) return OnHello(*hello);
  // A worker may say anything; only what is about its task counts.
  if (!greeted_ || !task_ || worker_ == nullptr) return;
  if (!std::holds_alternative<WorkerAlive>(message)) untried_ = false;
  if (const auto* progress = std::get_if<WorkerProgress>(&message)) {
    if (progress->job != task_->id || removing_ || progress->pairs_total <= 0) return;
    progress_ = std::clamp(
        static_cast<double>(progress->pairs_done) / static_cast<double>(progress->pairs_total),
        progress_, 1.0);
    callbacks_.on_progress(task_->id);
  } else if (const auto* log = std::get_if<WorkerLog>(&message)) {
    // Also what could not be removed.
    if (log->job == task_->id) callbacks_.on_log(task_->id, log->text);
  } else if (auto* finished = std::get_if<WorkerFinished>(&message)) {
    if (finished->job == task_->id && !removing_) OnFinished(std::move(*finished));
  } else if (const auto* removed = std::get_if<WorkerRemoved>(&message)) {
    if (removed->job == task_->id && removing_) End(std::nullopt);
  }
}

void JobRunner::OnHello(const WorkerHello& hello) {
  // One that was killed meanwhile may have said it before.
  if (greeted_ || ending_ != Ending::kNone) return;
  if (hello.build != kBuildId) {
    worker_->Kill("is of another build than this daemon; shut the daemon down and start it again");
    return;
  }
  greeted_ = true;
  trouble_.clear();
  backoff_.OnSuccess(kEverybody);
  if (!task_) return;
  ArmEndTimer();
  SendTask();
}

void JobRunner::OnFinished(WorkerFinished finished) {
  warm_docs_ = std::move(finished.warm_docs);
  backoff_.OnSuccess(worker_uid_);
  const absl::StatusCode code =
      ParseStatusCode(finished.error_code).value_or(absl::StatusCode::kInternal);
  JobOutcome outcome;
  outcome.device = std::move(finished.device);
  outcome.docs = std::move(finished.docs);
  outcome.search_seconds = finished.search_seconds;
  if (code == absl::StatusCode::kOk) {
    outcome.state = JobState::kDone;
    outcome.output_path = std::move(finished.output_path);
    outcome.report_json = std::move(finished.report_json);
  } else if (code == absl::StatusCode::kCancelled && ending_ == Ending::kAbandoned) {
    return End(std::nullopt);
  } else if (code == absl::StatusCode::kCancelled && ending_ == Ending::kOutOfTime) {
    outcome = OutOfTime(false);
  } else {
    const bool cancelled = code == absl::StatusCode::kCancelled && ending_ == Ending::kCancelled;
    outcome.state = cancelled ? JobState::kCancelled : JobState::kFailed;
    outcome.error_code = std::string(StatusCodeName(code));
    outcome.error =
        cancelled ? "cancelled while it ran; no result was written" : std::move(finished.error);
  }
  End(std::move(outcome));
}

JobOutcome JobRunner::OutOfTime(bool left_temporary) const {
  return OutOfTimeOutcome(task_->timeout_seconds, options_.max_seconds, left_temporary);
}

void JobRunner::OnExit(const WorkerEnd& end) {
  const bool expected = !task_ || replacing_;
  spdlog::log(expected ? spdlog::level::info : spdlog::level::warn, "worker {} {}", worker_->pid(),
              end.why);
  worker_ = nullptr;
  warm_docs_.clear();
  if (std::exchange(replacing_, false)) {
    greeted_ = false;
    if (task_ && ending_ == Ending::kNone) return Begin();
    if (task_) return;  // EndBeforeItBegan is on its way
  } else if (task_) {
    return OnWorkerDied(end);
  }
  releasing_ = false;
  callbacks_.on_ready();
}

// The task's worker is gone, or there never was one.
void JobRunner::OnWorkerDied(const WorkerEnd& end) {
  const bool started = greeted_;
  greeted_ = false;
  releasing_ = false;
  std::optional<JobOutcome> outcome;
  if (!removing_ && ending_ != Ending::kAbandoned) {
    if (started) backoff_.OnDeath(WorkerUser(task_->uid), Clock::now());
    if (started && untried_ && spared_ != task_->id) {
      spared_ = task_->id;  // it died between two jobs: this one never began
    } else if (started) {
      outcome =
          FailedOutcome(absl::StatusCode::kAborted, fmt::format("the worker {}", end.why), true);
    } else if (ending_ == Ending::kNone) {
      outcome = OutcomeOfFailedStart(end);
    }  // else it did not come up because it was killed: that says nothing of the next one
    if (ending_ == Ending::kOutOfTime) {
      outcome = OutOfTime(started);
    } else if (ending_ == Ending::kCancelled) {
      outcome = CancelledOutcome(started);
    }
  }
  AwaitBackoff();
  End(std::move(outcome));
}

// Of a worker that never said hello. Nothing: the job is to wait.
std::optional<JobOutcome> JobRunner::OutcomeOfFailedStart(const WorkerEnd& end) {
  using Kind = WorkerEnd::Kind;
  const int64_t user = WorkerUser(task_->uid);
  if (end.kind == Kind::kNotStarted || (user == own_user_ && end.kind == Kind::kEnded)) {
    // No fault of the job's: a library or a driver is missing, or the machine is full. A whole
    // queue must not fail for it overnight.
    backoff_.OnDeath(kEverybody, Clock::now());
    trouble_ = fmt::format("no worker can be started, the last one {}", end.why);
    spdlog::error("{}", trouble_);
    started_ = Clock::now();  // and nobody pays for it
    return std::nullopt;
  }
  // What another user may have done himself, by a signal for instance, is his alone: nobody else
  // may wait for it.
  backoff_.OnDeath(user, Clock::now());
  return FailedStartOutcome(end, user);
}

// on_ready when the next one may start who may not now.
void JobRunner::AwaitBackoff() {
  const std::optional<Clock::time_point> next = backoff_.NextEnd(Clock::now());
  if (!next) return;
  backoff_timer_.expires_at(*next);
  backoff_timer_.async_wait([this](const error_code& error) {
    if (error) return;
    AwaitBackoff();
    callbacks_.on_ready();
  });
}

void JobRunner::End(std::optional<JobOutcome> outcome) {
  const double seconds = ran_seconds();
  const int64_t job = task_->id;
  const bool removing = removing_;
  const bool abandoned = ending_ == Ending::kAbandoned;
  end_timer_.cancel();
  silence_timer_.cancel();
  task_.reset();
  removing_ = false;
  ending_ = Ending::kNone;
  if (worker_ != nullptr && !releasing_ && !replacing_) BecomeIdle();
  if (removing) {
    if (!abandoned) callbacks_.on_leftover_removed(job, seconds);
  } else {
    callbacks_.on_end(job, std::move(outcome), seconds);
  }
  if (ready()) callbacks_.on_ready();
}

void JobRunner::BecomeIdle() {
  idle_timer_.expires_after(options_.idle_release);
  idle_timer_.async_wait([this](const error_code& error) {
    if (error || worker_ == nullptr || task_) return;
    spdlog::info("worker {} was idle for {} s: released", worker_->pid(),
                 options_.idle_release.count());
    releasing_ = true;
    worker_->Finish();
  });
}

void JobRunner::Cancel() { AskToEnd(Ending::kCancelled); }

void JobRunner::AskToEnd(Ending ending) {
  if (!task_ || removing_ || ending_ != Ending::kNone) return;
  ending_ = ending;
  if (replacing_) return EndBeforeItBegan();
  // One that has not said hello has nothing to give up.
  if (worker_ != nullptr && !greeted_) return worker_->Kill("was cancelled before it had started");
  if (worker_ != nullptr) worker_->Send(WorkerCancel{task_->id});
  end_timer_.expires_after(timing_.patience);
  end_timer_.async_wait([this](const error_code& error) {
    if (!error && worker_ != nullptr) worker_->Kill("did not stop when asked to and was killed");
  });
}

// The task was to begin when another user's worker has gone: nobody has to be told.
void JobRunner::EndBeforeItBegan() {
  boost::asio::post(loop_, [this] {
    std::optional<JobOutcome> outcome;
    if (ending_ == Ending::kCancelled) outcome = CancelledOutcome(false);
    started_ = Clock::now();  // it has had nothing of the device
    if (worker_ == nullptr) releasing_ = false;
    End(std::move(outcome));
  });
}

void JobRunner::Abandon() {
  if (worker_ == nullptr) return;
  // A job that somebody has cancelled, or whose time is up, has ended: it must not run again.
  const bool goes_on = task_ && ending_ == Ending::kNone;
  if (goes_on) ending_ = Ending::kAbandoned;
  releasing_ = true;
  if (!replacing_) return worker_->Kill("was stopped with the daemon");
  if (goes_on) EndBeforeItBegan();  // the other user's worker is killed already
}

}  // namespace tiny_knn
