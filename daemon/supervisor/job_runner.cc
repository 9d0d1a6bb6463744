#include "daemon/supervisor/job_runner.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "boost/asio/post.hpp"
#include "boost/system/error_code.hpp"
#include "daemon/protocol/build_id.h"
#include "daemon/protocol/status_code_name.h"
#include "fmt/format.h"
#include "spdlog/spdlog.h"

namespace tiny_knn {
namespace {

using boost::system::error_code;

}  // namespace

JobRunner::JobRunner(boost::asio::io_context& loop, const SupervisorOptions& options,
                     WorkerBinary binary, std::vector<std::string> environment, Callbacks callbacks,
                     const Timing& timing)
    : loop_(loop),
      options_(options),
      binary_(std::move(binary)),
      environment_(std::move(environment)),
      callbacks_(std::move(callbacks)),
      timing_(timing),
      end_timer_(loop),
      silence_timer_(loop),
      idle_timer_(loop),
      backoff_timer_(loop) {}

JobRunner::~JobRunner() = default;

bool JobRunner::ready() const { return !task_ && !backing_off_ && !releasing_; }

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
  if (task_->timeout_seconds > 0 && !removing_) {
    end_timer_.expires_after(std::chrono::seconds(task_->timeout_seconds));
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
  untried_ = worker_ != nullptr && greeted_;
  if (worker_ == nullptr) {
    greeted_ = false;
    absl::StatusOr<std::shared_ptr<WorkerProcess>> worker =
        WorkerProcess::Start(loop_, binary_, options_.device, environment_,
                             {[this](FromWorker message) { OnMessage(std::move(message)); },
                              [this](const std::string& why) { OnExit(why); }});
    if (!worker.ok()) {
      boost::asio::post(
          loop_, [this, why = std::string(worker.status().message())] { OnWorkerDied(why); });
      return;
    }
    worker_ = *std::move(worker);
    worker_uid_ = task_->uid;
    spdlog::info("worker {} started", worker_->pid());
  }
  Watch();
  if (!greeted_) return;  // OnHello goes on
  if (removing_) {
    worker_->Send(WorkerRemove{task_->id, task_->temporary_tag, task_->spec});
  } else {
    worker_->Send(WorkerRun{task_->id, task_->attempt, task_->temporary_tag,
                            options_.max_memory_bytes, options_.most_threads, task_->spec});
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
  if (!task_) return;
  // Begin goes on from where it waited; the clock has been running.
  const Clock::time_point started = started_;
  Begin();
  started_ = started;
  untried_ = false;
}

void JobRunner::OnFinished(WorkerFinished finished) {
  warm_docs_ = std::move(finished.warm_docs);
  deaths_ = 0;
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
    outcome = Failure(absl::StatusCode::kDeadlineExceeded, "", false);
  } else {
    const bool cancelled = code == absl::StatusCode::kCancelled && ending_ == Ending::kCancelled;
    outcome.state = cancelled ? JobState::kCancelled : JobState::kFailed;
    outcome.error_code = std::string(StatusCodeName(code));
    outcome.error =
        cancelled ? "cancelled while it ran; no result was written" : std::move(finished.error);
  }
  End(std::move(outcome));
}

JobOutcome JobRunner::Failure(absl::StatusCode code, const std::string& why,
                              bool left_temporary) const {
  JobOutcome outcome;
  outcome.state = JobState::kFailed;
  outcome.error_code = std::string(StatusCodeName(code));
  outcome.error = code == absl::StatusCode::kDeadlineExceeded
                      ? fmt::format("ran longer than its timeout of {} s; --timeout allows more",
                                    task_->timeout_seconds)
                      : why;
  outcome.left_temporary = left_temporary;
  return outcome;
}

void JobRunner::OnExit(const std::string& why) {
  spdlog::log(task_ ? spdlog::level::warn : spdlog::level::info, "worker {} {}", worker_->pid(),
              why);
  worker_ = nullptr;
  warm_docs_.clear();
  if (task_) return OnWorkerDied(why);
  releasing_ = false;
  callbacks_.on_ready();
}

// The task's worker is gone, or there never was one.
void JobRunner::OnWorkerDied(const std::string& why) {
  const bool started = greeted_;
  greeted_ = false;
  releasing_ = false;
  std::optional<JobOutcome> outcome;
  if (!removing_ && ending_ != Ending::kAbandoned) {
    if (started && untried_ && spared_ != task_->id) {
      ++deaths_;  // it died between two jobs: this one never began
      spared_ = task_->id;
    } else if (started) {
      ++deaths_;
      outcome = Failure(absl::StatusCode::kAborted, fmt::format("the worker {}", why), true);
    } else if (ending_ != Ending::kNone) {
      // It did not come up because it was killed: that says nothing of the next one.
    } else {
      // No fault of the job's: a library or a driver is missing, or the machine is full. A whole
      // queue must not fail for it overnight.
      ++deaths_;
      trouble_ = fmt::format("no worker can be started, the last one {}", why);
      spdlog::error("{}", trouble_);
    }
    if (ending_ == Ending::kOutOfTime) {
      outcome = Failure(absl::StatusCode::kDeadlineExceeded, "", started);
    } else if (ending_ == Ending::kCancelled) {
      outcome = Failure(absl::StatusCode::kCancelled, "cancelled; no result was written", started);
      outcome->state = JobState::kCancelled;
    }
  }
  // The first to die gets a successor at once.
  if (deaths_ > 1) {
    backing_off_ = true;
    const int doublings = std::min(deaths_ - 2, 10);
    backoff_timer_.expires_after(
        std::min(timing_.first_backoff * (1 << doublings), timing_.longest_backoff));
    backoff_timer_.async_wait([this](const error_code& error) {
      if (error) return;
      backing_off_ = false;
      callbacks_.on_ready();
    });
  }
  End(std::move(outcome));
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
  if (worker_ != nullptr && !releasing_) BecomeIdle();
  if (removing) {
    if (!abandoned) callbacks_.on_leftover_removed(job);
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
  // One that has not said hello has nothing to give up.
  if (worker_ != nullptr && !greeted_) return worker_->Kill("was cancelled before it had started");
  if (worker_ != nullptr) worker_->Send(WorkerCancel{task_->id});
  end_timer_.expires_after(timing_.patience);
  end_timer_.async_wait([this](const error_code& error) {
    if (!error && worker_ != nullptr) worker_->Kill("did not stop when asked to and was killed");
  });
}

void JobRunner::Abandon() {
  if (worker_ == nullptr) return;
  // A job that somebody has cancelled, or whose time is up, has ended: it must not run again.
  if (task_ && ending_ == Ending::kNone) ending_ = Ending::kAbandoned;
  releasing_ = true;
  worker_->Kill("was stopped with the daemon");
}

}  // namespace tiny_knn
