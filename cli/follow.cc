#include "cli/follow.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "cli/interrupt.h"
#include "cli/job_requests.h"
#include "cli/text.h"
#include "core/job/one_line.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

using Clock = std::chrono::steady_clock;

// How long a line on a terminal may stand unchanged.
constexpr std::chrono::milliseconds kBetweenDraws(500);

// How often jobs without events are asked for. Those that wait have none when those before them go
// on, and those that were forgotten have no last one.
constexpr std::chrono::seconds kBetweenRefreshes(5);

bool SaysTheSame(const JobView& a, const JobView& b) {
  return std::tie(a.state, a.reason, a.progress, a.eta_seconds) ==
         std::tie(b.state, b.reason, b.progress, b.eta_seconds);
}

std::string JobsText(const std::vector<int64_t>& ids) {
  return ids.size() == 1 ? fmt::format("job {}", ids[0]) : fmt::format("{} jobs", ids.size());
}

}  // namespace

ProgressState ProgressOf(const JobView& job) {
  const double pairs =
      static_cast<double>(job.shape.num_queries) * static_cast<double>(job.shape.num_docs);
  const double share = std::isfinite(job.progress) ? std::clamp(job.progress, 0.0, 1.0) : 0;
  return {.pairs_done = static_cast<int64_t>(std::min(pairs * share, 9e18)),
          .pairs_total = static_cast<int64_t>(std::min(pairs, 9e18)),
          .seconds = job.elapsed_seconds.value_or(0),
          .seconds_left = job.eta_seconds};
}

std::string FormatFollowLine(const JobView& job, int width) {
  if (job.state == JobState::kRunning) return FormatProgressBar(ProgressOf(job), width);
  std::string line = fmt::format("job {} {}", job.id, JobStateName(job.state));
  if (!job.reason.empty()) line += fmt::format(": {}", OneLine(job.reason));
  if (job.eta_seconds) line += fmt::format(", {} left", FormatSeconds(*job.eta_seconds));
  return width >= 1 ? TruncateToWidth(line, width) : std::string();
}

// What Follow knows so far.
struct JobFollower::Round {
  const std::vector<int64_t>& ids;
  const Options& options;
  const std::set<int64_t> wanted = {ids.begin(), ids.end()};
  std::map<int64_t, JobView> jobs = {};
  std::set<int64_t> heard = {};  // had an event since the last refresh
  Clock::time_point next_refresh = Clock::now() + kBetweenRefreshes;

  bool IsKnownToBeFinished(int64_t id) const {
    const auto found = jobs.find(id);
    return found != jobs.end() && IsFinished(found->second.state);
  }
  bool AllFinished() const {
    return std::all_of(wanted.begin(), wanted.end(),
                       [this](int64_t id) { return IsKnownToBeFinished(id); });
  }
  std::vector<int64_t> Unfinished() const {
    std::vector<int64_t> unfinished;
    for (const int64_t id : wanted) {
      if (!IsKnownToBeFinished(id)) unfinished.push_back(id);
    }
    return unfinished;
  }
};

JobFollower::JobFollower(DaemonTexts daemon, Console& console)
    : daemon_(std::move(daemon)), console_(console), line_(console) {}

void JobFollower::BeginToConnect() {
  begun_ = tiny_knn::BeginToConnect(daemon_,
                                    [heard = signals_heard_] { return CaughtSignals() > *heard; });
}

absl::Status JobFollower::Connect() {
  if (!begun_) BeginToConnect();
  absl::StatusOr<std::unique_ptr<DaemonClient>> client = *std::exchange(begun_, std::nullopt);
  absl::Status status = client.ok() ? (*client)->Greet() : client.status();
  if (status.ok()) client_ = *std::move(client);
  return status;
}

absl::Status JobFollower::Reconnect(const absl::Status& why, Clock::time_point give_up) {
  line_.Clear();
  console_.Note(
      fmt::format("{}; waiting for one to come back, at most {} s",
                  absl::IsDeadlineExceeded(why) ? "the daemon does not answer"
                                                : "the connection to the daemon broke",
                  std::chrono::ceil<std::chrono::seconds>(give_up - Clock::now()).count()));
  absl::StatusOr<std::unique_ptr<DaemonClient>> client = ReconnectToDaemon(
      daemon_, [heard = signals_heard_] { return CaughtSignals() > *heard; }, give_up);
  if (!client.ok()) return client.status();
  client_ = *std::move(client);
  return absl::OkStatus();
}

absl::StatusOr<SubmitReply> JobFollower::Submit(const SubmitRequest& request) {
  absl::Status connected = client_ != nullptr ? absl::OkStatus() : Connect();
  if (!connected.ok()) return connected;
  std::optional<Clock::time_point> give_up;
  while (true) {
    absl::StatusOr<SubmitReply> reply = client_->Call<SubmitReply>(request);
    if (absl::IsCancelled(reply.status())) {
      return absl::CancelledError(
          "interrupted before the daemon answered; 'tiny-knn status' shows whether it has the job");
    }
    const bool lost = absl::IsDeadlineExceeded(reply.status()) ||
                      (absl::IsUnavailable(reply.status()) && ConnectionIsBroken(*client_));
    if (!lost) return reply;
    if (!give_up) give_up = Clock::now() + kReconnectFor;
    absl::Status status =
        Clock::now() < *give_up ? Reconnect(reply.status(), *give_up) : reply.status();
    if (!status.ok()) {
      return absl::Status(status.code(),
                          fmt::format("the daemon may or may not have taken the job; submitting it "
                                      "again with --key {} is safe: {}",
                                      request.key, std::string(status.message())));
    }
  }
}

absl::Status JobFollower::Subscribe(Round& round) {
  // A job that was finished and then forgotten is not there any more, but its end is known.
  const std::vector<int64_t> ids = round.Unfinished();
  if (ids.empty()) return absl::OkStatus();
  const bool by_name = std::ssize(ids) <= kMostJobsPerRequest;
  absl::Status status =
      client_
          ->Call<SubscribeReply>(SubscribeRequest{.jobs = by_name ? ids : std::vector<int64_t>()})
          .status();
  if (absl::IsNotFound(status)) return ExplainForgotten(status, round);
  // A subscription to all jobs says nothing of ids that are none.
  return status.ok() && !by_name ? Refresh(ids, round) : status;
}

absl::Status JobFollower::Refresh(const std::vector<int64_t>& ids, Round& round) {
  round.next_refresh = Clock::now() + kBetweenRefreshes;
  round.heard.clear();
  const absl::StatusOr<std::vector<JobView>> jobs = AskForJobs(*client_, ids);
  if (absl::IsNotFound(jobs.status())) return ExplainForgotten(jobs.status(), round);
  if (!jobs.ok()) return jobs.status();
  for (const JobView& job : *jobs) {
    absl::Status status = Take(job, round);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// Which of the jobs is not there. OK when it is one whose end was heard of.
absl::Status JobFollower::ExplainForgotten(const absl::Status& not_found, Round& round) {
  if (round.jobs.empty()) return not_found;
  for (const int64_t id : round.Unfinished()) {
    absl::Status status = AskForJobs(*client_, {id}).status();
    if (status.ok()) continue;
    if (!absl::IsNotFound(status)) return status;
    // Its last event may have come before the reply.
    absl::Status taken = TakePending(round);
    if (!taken.ok()) return taken;
    if (round.IsKnownToBeFinished(id)) continue;
    if (!round.jobs.contains(id)) return status;
    return absl::NotFoundError(
        fmt::format("job {} was forgotten by the daemon before its end was heard of, as 'tiny-knn "
                    "clean' does with finished jobs; whether it has a result is not known",
                    id));
  }
  return absl::OkStatus();
}

absl::Status JobFollower::TakePending(Round& round) {
  while (true) {
    const absl::StatusOr<std::optional<JobEvent>> event =
        client_->NextEvent(std::chrono::milliseconds(0));
    if (!event.ok()) return event.status();
    if (!event->has_value()) return absl::OkStatus();
    absl::Status status = Take((*event)->job, round);
    if (!status.ok()) return status;
  }
}

absl::Status JobFollower::AskToCancel(const Round& round) {
  return CancelJobs(*client_, round.Unfinished()).status();
}

absl::Status JobFollower::Interrupted(const Round& round) {
  line_.Clear();
  if (!round.options.cancel_on_interrupt) {
    return absl::CancelledError(fmt::format("interrupted; {} {} on in the daemon",
                                            JobsText(round.ids),
                                            round.ids.size() == 1 ? "goes" : "go"));
  }
  if (!asked_to_cancel_) {
    ++*signals_heard_;
    asked_to_cancel_ = true;
    console_.Note(fmt::format("cancelling {}; once more leaves at once", JobsText(round.ids)));
    absl::Status status = AskToCancel(round);
    if (!absl::IsCancelled(status)) return status;
  }
  return absl::CancelledError(
      fmt::format("interrupted twice: left before {} was cancelled; see 'tiny-knn status'",
                  JobsText(round.ids)));
}

absl::Status JobFollower::Take(const JobView& heard, Round& round) {
  // What is older than a refresh may come after it; what is finished stays so.
  if (!round.wanted.contains(heard.id) || round.IsKnownToBeFinished(heard.id)) {
    return absl::OkStatus();
  }
  const JobView job = WithReason(heard, users_);
  const auto known = round.jobs.find(job.id);
  const bool changed = known == round.jobs.end() || !SaysTheSame(known->second, job);
  round.jobs.insert_or_assign(job.id, job);
  if (IsFinished(job.state)) line_.Clear();
  if (round.options.on_change && changed) {
    absl::Status status = round.options.on_change(job);
    if (!status.ok()) return status;
  }
  if (round.options.draw && !IsFinished(job.state)) {
    line_.Draw(FormatFollowLine(job, TerminalLine::Width()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<JobView>> JobFollower::Follow(const std::vector<int64_t>& ids,
                                                         const Options& options) {
  absl::Status status = client_ != nullptr ? absl::OkStatus() : Connect();
  if (!status.ok()) return status;
  Round round{.ids = ids, .options = options};
  status = Subscribe(round);
  while (true) {
    if (absl::IsCancelled(status)) {
      status = Interrupted(round);
      if (absl::IsCancelled(status)) return status;
    }
    if (MayReconnect(status)) {
      status = Reconnect(status, Clock::now() + kReconnectFor);
      if (MayReconnect(status)) {
        return absl::UnavailableError(fmt::format(
            "{} went on without an answer; a daemon keeps its queue when it ends: start it and ask "
            "with 'tiny-knn status': {}",
            JobsText(ids), std::string(status.message())));
      }
      if (status.ok()) status = Subscribe(round);
      if (status.ok() && asked_to_cancel_) status = AskToCancel(round);
      if (!status.ok()) {
        if (absl::IsCancelled(status) || MayReconnect(status)) continue;
        return status;
      }
    }
    if (!status.ok()) return status;
    if (round.AllFinished()) break;
    absl::StatusOr<std::optional<JobEvent>> event = client_->NextEvent(kBetweenDraws);
    status = event.status();
    if (event.ok() && event->has_value()) {
      round.heard.insert((*event)->job.id);
      status = Take((*event)->job, round);
    }
    if (status.ok() && Clock::now() >= round.next_refresh) {
      std::vector<int64_t> silent = round.Unfinished();
      std::erase_if(silent, [&](int64_t id) { return round.heard.contains(id); });
      status = Refresh(silent, round);
    }
  }
  line_.Clear();
  std::vector<JobView> jobs;
  jobs.reserve(ids.size());
  for (int64_t id : ids) jobs.push_back(round.jobs.at(id));
  return jobs;
}

}  // namespace tiny_knn
