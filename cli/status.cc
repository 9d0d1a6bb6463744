// `tiny-knn status`: the queue, or single jobs.
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cli/daemon_connection.h"
#include "cli/interrupt.h"
#include "cli/job_requests.h"
#include "cli/job_selection.h"
#include "cli/job_table.h"
#include "cli/verbs.h"
#include "cli/watch.h"
#include "daemon/client/client.h"
#include "daemon/protocol/client_messages.h"
#include "fmt/format.h"

namespace tiny_knn {

const std::string_view kStatusHelp =
    R"(tiny-knn status: the queue, or one job in full

usage: tiny-knn status [ID ...] [flags]

Without ID a table of your jobs that are queued or running and of the last 10
that are finished, and a line about the device: what it does, which docs are
kept warm, and whether jobs are accepted. Columns that do not fit the terminal
are left out. With ID everything that is known of these jobs. Root sees the
jobs of all.

      --json        an array of the same jobs on one line, with id, user, state,
                    progress, output_path, error (null or text) and more
      --watch       shows changes as they come: redraws the table on a terminal,
                    else prints a line each; Ctrl-C ends it (exit code 0). Of
                    finished jobs those that end meanwhile, with --all all. With
                    ID it ends when these jobs are finished
      --all         all finished jobs, not only the last 10
      --everyone    also the jobs of other users: whose they are, how far, and
                    when their turn comes, but no paths, sizes and errors
      --socket P    the daemon's socket (default: yours, else the system's)
  -h, --help        this page

exit codes: 0, 1 no daemon, 2 wrong use or no such job

example: tiny-knn status --watch
)";

namespace {

constexpr int kLastFinished = 10;

struct StatusTexts {
  DaemonTexts daemon;
  std::vector<std::string> ids;
  bool json = false, watch = false, all = false, everyone = false;
};

void Declare(FlagParser& parser, StatusTexts& texts) {
  parser.Switch("--json", &texts.json);
  parser.Switch("--watch", &texts.watch);
  parser.Switch("--all", &texts.all);
  parser.Switch("--everyone", &texts.everyone);
  DeclareDaemonFlags(parser, texts.daemon);
  parser.Positionals("ID", &texts.ids);
}

absl::StatusOr<std::vector<JobView>> FindJobs(DaemonClient& client, const StatusTexts& texts,
                                              const std::vector<int64_t>& ids) {
  if (!ids.empty()) return AskForJobs(client, ids);
  absl::StatusOr<std::vector<JobView>> jobs =
      ListAllJobs(client, ListRequest{.everyone = texts.everyone});
  if (!jobs.ok()) return jobs.status();
  return SelectJobs(*std::move(jobs), texts.all ? std::nullopt : std::optional<int>(kLastFinished));
}

absl::Status ShowStatus(const StatusTexts& texts, const std::vector<int64_t>& ids,
                        Console& console) {
  const absl::StatusOr<std::unique_ptr<DaemonClient>> client = ConnectToDaemon(texts.daemon);
  if (!client.ok()) return client.status();
  absl::StatusOr<std::vector<JobView>> jobs = FindJobs(**client, texts, ids);
  if (!jobs.ok()) return jobs.status();
  UserNames users;
  if (texts.json) {
    console.Out(JobsToJsonArray(*jobs, users));
    return absl::OkStatus();
  }
  std::vector<JobRow> rows;
  for (JobView& job : *jobs) {
    const std::string user = users.Of(job.uid);
    rows.push_back({WithReason(std::move(job), users), user});
  }
  if (!ids.empty()) {
    for (size_t i = 0; i < rows.size(); ++i) {
      if (i > 0) console.Out("\n");
      console.Out(FormatJob(rows[i]));
    }
    return absl::OkStatus();
  }
  const absl::StatusOr<StatsReply> stats = (*client)->Call<StatsReply>(StatsRequest{});
  if (!stats.ok()) return stats.status();
  const int width = TerminalWidth(STDOUT_FILENO);
  console.Out(FormatJobTable(rows, width));
  console.Out(FormatDevice(*stats, RunningUser(*stats, users), width));
  return absl::OkStatus();
}

}  // namespace

absl::Status StatusVerb(const std::vector<std::string>& args, Console& console) {
  FlagParser parser("status", "[ID ...] [flags]");
  StatusTexts texts;
  Declare(parser, texts);
  absl::Status status = parser.Parse(args);
  if (!status.ok() || PrintedHelp(parser, kStatusHelp, console)) return status;
  absl::StatusOr<std::vector<int64_t>> ids = std::vector<int64_t>();
  if (!texts.ids.empty()) ids = ParseJobIds(texts.ids, "status [ID ...]");
  if (!ids.ok()) return ids.status();
  if (texts.everyone && !ids->empty()) {
    return absl::InvalidArgumentError(
        "--everyone is about the whole queue; leave it out, or leave out the IDs");
  }
  CatchInterrupts();
  if (!texts.watch) return ShowStatus(texts, *ids, console);
  return WatchJobs({.daemon = texts.daemon,
                    .ids = *ids,
                    .all = texts.all,
                    .everyone = texts.everyone,
                    .json = texts.json,
                    .most_finished = texts.all ? std::nullopt : std::optional<int>(kLastFinished)},
                   console);
}

VerbFlags StatusVerbFlags() { return DeclaredFlags<StatusTexts>(Declare); }

}  // namespace tiny_knn
