#include "cli/follow.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "cli/interrupt.h"
#include "cli/text.h"
#include "core/job/one_line.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// How long a line on a terminal may stand unchanged.
constexpr std::chrono::milliseconds kBetweenDraws(500);

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
  std::map<int64_t, JobView> jobs = {};

  bool AllFinished() const {
    return std::all_of(ids.begin(), ids.end(), [this](int64_t id) {
      const auto found = jobs.find(id);
      return found != jobs.end() && IsFinished(found->second.state);
    });
  }
};

JobFollower::JobFollower(DaemonTexts daemon, Console& console)
    : daemon_(std::move(daemon)), console_(console), line_(console) {}

absl::Status JobFollower::Connect() {
  absl::StatusOr<std::unique_ptr<DaemonClient>> client =
      ConnectToDaemon(daemon_, [heard = signals_heard_] { return CaughtSignals() > *heard; });
  if (!client.ok()) return client.status();
  client_ = *std::move(client);
  return absl::OkStatus();
}

absl::Status JobFollower::Reconnect() {
  line_.Clear();
  console_.Note(
      fmt::format("the connection to the daemon broke; waiting for one to come back, at most {} s",
                  kReconnectFor.count()));
  absl::StatusOr<std::unique_ptr<DaemonClient>> client =
      ReconnectToDaemon(daemon_, [heard = signals_heard_] { return CaughtSignals() > *heard; });
  if (!client.ok()) return client.status();
  client_ = *std::move(client);
  return absl::OkStatus();
}

absl::StatusOr<SubmitReply> JobFollower::Submit(const SubmitRequest& request) {
  absl::Status connected = client_ != nullptr ? absl::OkStatus() : Connect();
  if (!connected.ok()) return connected;
  while (true) {
    absl::StatusOr<SubmitReply> reply = client_->Call<SubmitReply>(request);
    if (absl::IsCancelled(reply.status())) {
      return absl::CancelledError(
          "interrupted before the daemon answered; 'tiny-knn status' shows whether it has the job");
    }
    if (!absl::IsUnavailable(reply.status()) || !ConnectionIsBroken(*client_)) return reply;
    absl::Status status = Reconnect();
    if (!status.ok()) {
      return absl::Status(status.code(),
                          fmt::format("the daemon may or may not have taken the job; submitting it "
                                      "again with --key {} is safe: {}",
                                      request.key, std::string(status.message())));
    }
  }
}

absl::Status JobFollower::Subscribe(const Round& round) {
  return client_->Call<SubscribeReply>(SubscribeRequest{.jobs = round.ids}).status();
}

absl::Status JobFollower::AskToCancel(const Round& round) {
  std::vector<int64_t> unfinished;
  for (int64_t id : round.ids) {
    const auto found = round.jobs.find(id);
    if (found == round.jobs.end() || !IsFinished(found->second.state)) unfinished.push_back(id);
  }
  if (unfinished.empty()) return absl::OkStatus();
  return client_->Call<JobsReply>(CancelRequest{.jobs = std::move(unfinished)}).status();
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

absl::Status JobFollower::Take(const JobView& job, Round& round) {
  round.jobs.insert_or_assign(job.id, job);
  if (IsFinished(job.state)) line_.Clear();
  if (round.options.on_change) {
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
    if (absl::IsUnavailable(status)) {
      status = Reconnect();
      if (absl::IsUnavailable(status)) {
        return absl::UnavailableError(fmt::format(
            "{} went on without an answer; a daemon keeps its queue when it ends: start it and ask "
            "with 'tiny-knn status': {}",
            JobsText(ids), std::string(status.message())));
      }
      if (status.ok()) status = Subscribe(round);
      if (status.ok() && asked_to_cancel_) status = AskToCancel(round);
      if (!status.ok()) {
        if (absl::IsCancelled(status) || absl::IsUnavailable(status)) continue;
        return status;
      }
    }
    if (!status.ok()) return status;
    if (round.AllFinished()) break;
    absl::StatusOr<std::optional<JobEvent>> event = client_->NextEvent(kBetweenDraws);
    status = event.status();
    if (event.ok() && event->has_value()) status = Take((*event)->job, round);
  }
  line_.Clear();
  std::vector<JobView> jobs;
  jobs.reserve(ids.size());
  for (int64_t id : ids) jobs.push_back(round.jobs.at(id));
  return jobs;
}

}  // namespace tiny_knn
