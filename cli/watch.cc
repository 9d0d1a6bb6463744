#include "cli/watch.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

#include "cli/job_requests.h"
#include "cli/job_selection.h"
#include "cli/job_table.h"
#include "daemon/client/client.h"
#include "daemon/protocol/client_messages.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace tiny_knn {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kBetweenDraws(250);
// How often all is asked for again: what waits changes without events, and what was forgotten too.
constexpr std::chrono::seconds kBetweenRefreshes(5);
// Of the time, the part that this takes at most of a long queue.
constexpr int kRefreshShare = 20;
constexpr int kUsualTerminalHeight = 24;

bool CanRedraw() {
  const char* terminal = std::getenv("TERM");
  return isatty(STDOUT_FILENO) != 0 && terminal != nullptr && *terminal != '\0' &&
         std::string_view(terminal) != "dumb";
}

int TerminalHeight() {
  struct winsize size {};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0) return kUsualTerminalHeight;
  return size.ws_row;
}

// What a reader of lines would call a change; times pass without one.
using Seen = std::tuple<JobState, std::string, std::string>;
Seen SeenOf(const JobView& job) {
  return {job.state, job.state == JobState::kRunning ? FormatPercent(job.progress) : "",
          job.reason};
}

class Watch {
 public:
  Watch(const WatchOptions& options, Console& console)
      : options_(options), console_(console), redraws_(!options.json && CanRedraw()) {}

  absl::Status Run() {
    absl::StatusOr<std::unique_ptr<DaemonClient>> client = ConnectToDaemon(options_.daemon);
    while (true) {
      absl::Status status = client.status();
      if (status.ok()) status = Listen(**client);
      if (status.ok() || SignalCaught() || console_.reader_gone()) return absl::OkStatus();
      if (!connected_once_ || !MayReconnect(status)) return status;
      client = ReconnectToDaemon(options_.daemon, SignalCaught);
      if (!client.ok()) return SignalCaught() ? absl::OkStatus() : client.status();
    }
  }

 private:
  // Until the connection breaks or there is nothing more to watch (OK).
  absl::Status Listen(DaemonClient& client) {
    absl::Status status = Subscribe(client);
    if (!status.ok()) return status;
    connected_once_ = true;
    Clock::time_point next_refresh = Clock::now() + kBetweenRefreshes;
    Clock::time_point next_draw = Clock::now() + kBetweenDraws;
    while (true) {
      const absl::StatusOr<std::optional<JobEvent>> event = client.NextEvent(kBetweenDraws);
      if (!event.ok()) return event.status();
      if (event->has_value()) {
        status = Take((*event)->job, options_.json);
        if (!status.ok()) return status;
      }
      if (Clock::now() >= next_refresh && !NothingMore()) {
        const Clock::time_point began = Clock::now();
        status = Refresh(client);
        if (!status.ok()) return status;
        next_refresh =
            Clock::now() +
            std::max<Clock::duration>(kBetweenRefreshes, kRefreshShare * (Clock::now() - began));
      }
      if (redraws_ && (Clock::now() >= next_draw || NothingMore())) {
        status = Redraw(client);
        if (!status.ok()) return status;
        next_draw = Clock::now() + kBetweenDraws;
      }
      if (NothingMore() || console_.reader_gone()) return absl::OkStatus();
    }
  }

  bool NothingMore() const { return !options_.ids.empty() && Unfinished().empty(); }

  absl::Status Subscribe(DaemonClient& client) {
    // A job that was finished and then forgotten is not there any more, but its end is known.
    std::vector<int64_t> ids = Unfinished();
    const bool by_name = std::ssize(ids) <= kMostJobsPerRequest;
    if (!by_name) ids.clear();
    absl::Status status = client.Call<SubscribeReply>(SubscribeRequest{.jobs = ids}).status();
    // A subscription to all jobs says nothing of ids that are none.
    if (!status.ok()) return status;
    return !by_name || options_.everyone ? Refresh(client) : absl::OkStatus();
  }

  // As it is now: also what has no events, and without the jobs that are gone.
  absl::Status Refresh(DaemonClient& client) {
    if (!options_.ids.empty()) {
      const absl::StatusOr<std::vector<JobView>> jobs = AskForJobs(client, Unfinished());
      if (absl::IsNotFound(jobs.status())) return ExplainForgotten(client, jobs.status());
      return jobs.ok() ? TakeAll(*jobs) : jobs.status();
    }
    std::set<int64_t> gone;
    for (const auto& [id, job] : jobs_) {
      if (options_.all || !IsFinished(job.state)) gone.insert(id);
    }
    ListRequest request = {.finished = options_.all, .everyone = options_.everyone};
    absl::Status status = TakeList(client, request, gone);
    if (status.ok() && options_.everyone && !options_.all && !gone.empty()) {
      // Others' jobs say by no event that they are finished.
      request.finished = true;
      request.after_job = *gone.begin() - 1;
      status = TakeList(client, request, gone);
    }
    // The last events of those that are gone may have come before the list.
    if (status.ok()) status = TakePending(client);
    if (!status.ok()) return status;
    for (const int64_t id : gone) {
      const auto found = jobs_.find(id);
      if (found == jobs_.end() || (!options_.all && IsFinished(found->second.state))) continue;
      jobs_.erase(found);
      seen_.erase(id);
    }
    return absl::OkStatus();
  }

  // Those that are there are not `gone`.
  absl::Status TakeList(DaemonClient& client, const ListRequest& request, std::set<int64_t>& gone) {
    const absl::StatusOr<std::vector<JobView>> jobs = ListAllJobs(client, request);
    if (!jobs.ok()) return jobs.status();
    for (const JobView& job : *jobs) gone.erase(job.id);
    return TakeAll(*jobs);
  }

  absl::Status TakeAll(const std::vector<JobView>& jobs) {
    for (const JobView& job : jobs) {
      absl::Status status = Take(job, false);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  // OK when the end of such a job was heard of in time.
  absl::Status ExplainForgotten(DaemonClient& client, const absl::Status& not_found) {
    if (!connected_once_) return not_found;
    const size_t before = Unfinished().size();
    absl::Status status = TakePending(client);
    if (!status.ok() || Unfinished().size() < before) return status;
    return absl::NotFoundError(
        fmt::format("a watched job was forgotten by the daemon, as 'tiny-knn clean' does with "
                    "finished jobs: {}",
                    std::string(not_found.message())));
  }

  absl::Status TakePending(DaemonClient& client) {
    while (true) {
      const absl::StatusOr<std::optional<JobEvent>> event =
          client.NextEvent(std::chrono::milliseconds(0));
      if (!event.ok()) return event.status();
      if (!event->has_value()) return absl::OkStatus();
      absl::Status status = Take((*event)->job, options_.json);
      if (!status.ok()) return status;
    }
  }

  std::vector<int64_t> Unfinished() const {
    std::vector<int64_t> ids;
    for (const int64_t id : options_.ids) {
      const auto found = jobs_.find(id);
      if (found == jobs_.end() || !IsFinished(found->second.state)) ids.push_back(id);
    }
    return ids;
  }

  // Whether it was finished before anybody watched.
  bool IsOld(const JobView& job) const {
    return IsFinished(job.state) && options_.ids.empty() && !options_.all &&
           job.finished_at.value_or(0) < began_;
  }

  // `always`: also when a reader of lines would not call it a change.
  absl::Status Take(const JobView& heard, bool always) {
    if (!wanted_.empty() && !wanted_.contains(heard.id)) return absl::OkStatus();
    const JobView job = WithReason(heard, users_);
    const bool is_new = !jobs_.contains(job.id);
    if (is_new && IsOld(job)) return absl::OkStatus();
    // What is older than a refresh may come after it; what is finished stays so.
    if (!is_new && IsFinished(jobs_.at(job.id).state)) return absl::OkStatus();
    jobs_.insert_or_assign(job.id, job);
    const Seen seen = SeenOf(job);
    const bool changed = is_new || seen_[job.id] != seen;
    seen_[job.id] = seen;
    if (redraws_ || (!changed && !always)) return absl::OkStatus();
    if (options_.json) {
      console_.Out(
          JobToJson(job, users_).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) +
          "\n");
    } else {
      console_.Out(FormatJobLine({job, users_.Of(job.uid)}) + "\n");
    }
    return console_.Flush();
  }

  // The whole picture, over the one before.
  absl::Status Redraw(DaemonClient& client) {
    const absl::StatusOr<StatsReply> stats = client.Call<StatsReply>(StatsRequest{});
    if (!stats.ok()) return stats.status();
    std::vector<JobView> jobs;
    for (const auto& [id, job] : jobs_) jobs.push_back(job);
    jobs = SelectJobs(std::move(jobs), options_.most_finished);
    const int width = TerminalWidth(STDOUT_FILENO);
    const std::string device = FormatDevice(*stats, RunningUser(*stats, users_), width);
    const auto device_lines = std::count(device.begin(), device.end(), '\n');
    // What does not fit above the last line would scroll and could not be drawn over.
    const auto room = std::max<std::ptrdiff_t>(1, TerminalHeight() - device_lines - 2);
    const std::ptrdiff_t hidden = std::max<std::ptrdiff_t>(0, std::ssize(jobs) - room);
    if (hidden > 0) jobs.erase(jobs.begin(), jobs.begin() + hidden);
    std::vector<JobRow> rows;
    for (JobView& job : jobs) {
      const std::string user = users_.Of(job.uid);
      rows.push_back({std::move(job), user});
    }
    const std::string picture = FormatJobTable(rows, width) + device;
    const std::string up = drawn_lines_ > 0 ? fmt::format("\x1b[{}A", drawn_lines_) : "";
    console_.Out(fmt::format("{}\r\x1b[J{}", up, picture));
    drawn_lines_ = std::count(picture.begin(), picture.end(), '\n');
    return console_.Flush();
  }

  const WatchOptions& options_;
  Console& console_;
  const bool redraws_;
  // Seconds since 1970, as the daemon's times.
  const double began_ =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  bool connected_once_ = false;
  UserNames users_;
  const std::set<int64_t> wanted_ = {options_.ids.begin(), options_.ids.end()};
  std::map<int64_t, JobView> jobs_;
  std::map<int64_t, Seen> seen_;
  std::ptrdiff_t drawn_lines_ = 0;
};

}  // namespace

absl::Status WatchJobs(const WatchOptions& options, Console& console) {
  return Watch(options, console).Run();
}

}  // namespace tiny_knn
