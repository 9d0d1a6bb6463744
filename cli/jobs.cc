// `tiny-knn wait`, `log`, `cancel` and `clean`: what is done with jobs that are in the daemon.
#include <unistd.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cli/daemon_connection.h"
#include "cli/follow.h"
#include "cli/interrupt.h"
#include "cli/job_requests.h"
#include "cli/search_report.h"
#include "cli/text.h"
#include "cli/verbs.h"
#include "core/job/one_line.h"
#include "daemon/client/client.h"
#include "daemon/protocol/client_messages.h"
#include "fmt/format.h"

namespace tiny_knn {

const std::string_view kWaitHelp =
    R"(tiny-knn wait: until jobs are finished

usage: tiny-knn wait ID... [--json] [--socket P]

Prints the paths of the results, in the order of the IDs. When a job has failed
or was cancelled, the exit code is that of the first such one: what run would
have exited with. Ctrl-C stops the waiting, not the jobs. A daemon that is
restarted meanwhile is waited for, up to 60 s.

      --json        an array of the jobs instead, also of those that failed
      --socket P    the daemon's socket (default: yours, else the system's)
  -h, --help        this page

example: tiny-knn wait 12 13
)";

const std::string_view kLogHelp =
    R"(tiny-knn log: what a job has said

usage: tiny-knn log ID [--follow] [--socket P]

      --follow      goes on until the job is finished
      --socket P    the daemon's socket (default: yours, else the system's)
  -h, --help        this page

example: tiny-knn log 12
)";

const std::string_view kCancelHelp =
    R"(tiny-knn cancel: stop jobs, or take them from the queue

usage: tiny-knn cancel ID... [--json] [--socket P]

A job that is cancelled leaves no result and no temporary file. One that is
finished already stays as it is. Administrators of a system's daemon, and root,
may cancel the jobs of others: 'tiny-knn status --everyone' lists them.

      --json        an array of the jobs, as they are now
      --socket P    the daemon's socket (default: yours, else the system's)
  -h, --help        this page

example: tiny-knn cancel 12 13
)";

const std::string_view kCleanHelp =
    R"(tiny-knn clean: forget your finished jobs

usage: tiny-knn clean [--socket P]

Removes your jobs that are done, failed or cancelled from the daemon's list, and
their logs. Results stay where they are. The daemon does this by itself with
jobs that were finished 30 days ago.

      --socket P    the daemon's socket (default: yours, else the system's)
  -h, --help        this page

example: tiny-knn clean
)";

namespace {

constexpr std::chrono::milliseconds kBetweenLooksAtLog(250);

struct JobsTexts {
  DaemonTexts daemon;
  std::vector<std::string> ids;
  bool json = false;
};

void DeclareJobs(FlagParser& parser, JobsTexts& texts) {
  parser.Switch("--json", &texts.json);
  DeclareDaemonFlags(parser, texts.daemon);
  parser.Positionals("ID", &texts.ids);
}

struct LogTexts {
  DaemonTexts daemon;
  std::string id;
  bool follow = false;
};

void DeclareLog(FlagParser& parser, LogTexts& texts) {
  parser.Switch("--follow", &texts.follow);
  DeclareDaemonFlags(parser, texts.daemon);
  parser.Positional("ID", &texts.id);
}

// Line by line harmless on a terminal, byte for byte elsewhere.
void PrintLog(std::string_view text, Console& console) {
  if (isatty(STDOUT_FILENO) == 0) {
    console.Out(text);
    return;
  }
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    console.Out(OneLine(text.substr(0, end)) + "\n");
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

absl::Status ShowLog(const LogTexts& texts, int64_t id, Console& console) {
  const absl::StatusOr<std::unique_ptr<DaemonClient>> client = ConnectToDaemon(texts.daemon);
  if (!client.ok()) return client.status();
  if (texts.follow) {
    // Only so that the end of the job wakes us; what the log says is asked for below.
    absl::Status status = (*client)->Call<SubscribeReply>(SubscribeRequest{.jobs = {id}}).status();
    if (!status.ok()) return status;
  }
  int64_t offset = 0;
  while (true) {
    const absl::StatusOr<LogReply> log =
        (*client)->Call<LogReply>(LogRequest{.job = id, .offset = offset});
    if (!log.ok()) return log.status();
    PrintLog(log->text, console);
    absl::Status status = console.Flush();
    if (!status.ok() || console.reader_gone()) return status;
    const bool got_more = log->next_offset > offset;
    offset = log->next_offset;
    if (log->finished) return absl::OkStatus();
    if (got_more) continue;
    if (!texts.follow) return absl::OkStatus();
    status = (*client)->NextEvent(kBetweenLooksAtLog).status();
    if (!status.ok()) return status;
  }
}

}  // namespace

absl::Status WaitVerb(const std::vector<std::string>& args, Console& console) {
  FlagParser parser("wait", "ID... [flags]");
  JobsTexts texts;
  DeclareJobs(parser, texts);
  absl::Status status = parser.Parse(args);
  if (!status.ok() || PrintedHelp(parser, kWaitHelp, console)) return status;
  const absl::StatusOr<std::vector<int64_t>> ids = ParseJobIds(texts.ids, "wait ID...");
  if (!ids.ok()) return ids.status();
  CatchInterrupts();
  JobFollower follower(texts.daemon, console);
  const absl::StatusOr<std::vector<JobView>> jobs = follower.Follow(*ids, {});
  if (!jobs.ok()) return jobs.status();
  UserNames users;
  if (texts.json) console.Out(JobsToJsonArray(*jobs, users));
  absl::Status first_failure;
  for (const JobView& job : *jobs) {
    status = JobStatus(job);
    if (status.ok()) {
      if (!texts.json) PrintPath(job.output_path, console);
    } else if (first_failure.ok()) {
      first_failure = status;
    } else {
      console.Note(std::string(status.message()));
    }
  }
  return first_failure;
}

absl::Status LogVerb(const std::vector<std::string>& args, Console& console) {
  FlagParser parser("log", "ID [flags]");
  LogTexts texts;
  DeclareLog(parser, texts);
  absl::Status status = parser.Parse(args);
  if (!status.ok() || PrintedHelp(parser, kLogHelp, console)) return status;
  const absl::StatusOr<std::vector<int64_t>> ids = ParseJobIds({texts.id}, "log ID");
  if (!ids.ok()) return ids.status();
  CatchInterrupts();
  status = ShowLog(texts, ids->front(), console);
  if (SignalCaught()) return absl::CancelledError("interrupted; the job goes on in the daemon");
  return status;
}

absl::Status CancelVerb(const std::vector<std::string>& args, Console& console) {
  FlagParser parser("cancel", "ID... [flags]");
  JobsTexts texts;
  DeclareJobs(parser, texts);
  absl::Status status = parser.Parse(args);
  if (!status.ok() || PrintedHelp(parser, kCancelHelp, console)) return status;
  const absl::StatusOr<std::vector<int64_t>> ids = ParseJobIds(texts.ids, "cancel ID...");
  if (!ids.ok()) return ids.status();
  CatchInterrupts();
  const absl::StatusOr<std::unique_ptr<DaemonClient>> client = ConnectToDaemon(texts.daemon);
  if (!client.ok()) return client.status();
  const absl::StatusOr<std::vector<JobView>> jobs = CancelJobs(**client, *ids);
  if (!jobs.ok()) return jobs.status();
  UserNames users;
  if (texts.json) {
    console.Out(JobsToJsonArray(*jobs, users));
    return absl::OkStatus();
  }
  for (const JobView& job : *jobs) {
    const bool stops = !IsFinished(job.state);
    console.Note(
        fmt::format("job {}: {}", job.id, stops ? "is being stopped" : JobStateName(job.state)));
  }
  return absl::OkStatus();
}

absl::Status CleanVerb(const std::vector<std::string>& args, Console& console) {
  FlagParser parser("clean", "[flags]");
  DaemonTexts texts;
  DeclareDaemonFlags(parser, texts);
  absl::Status status = parser.Parse(args);
  if (!status.ok() || PrintedHelp(parser, kCleanHelp, console)) return status;
  CatchInterrupts();
  const absl::StatusOr<CleanReply> reply = AskDaemon<CleanReply>(texts, CleanRequest{});
  if (!reply.ok()) return reply.status();
  console.Note(fmt::format("forgot {}", Plural(reply->removed, "finished job", "finished jobs")));
  return absl::OkStatus();
}

VerbFlags WaitVerbFlags() { return DeclaredFlags<JobsTexts>(DeclareJobs); }
VerbFlags LogVerbFlags() { return DeclaredFlags<LogTexts>(DeclareLog); }
VerbFlags CancelVerbFlags() { return DeclaredFlags<JobsTexts>(DeclareJobs); }
VerbFlags CleanVerbFlags() { return DeclaredFlags<DaemonTexts>(DeclareDaemonFlags); }

}  // namespace tiny_knn
