// Waiting for jobs: over restarts of the daemon, with progress on a terminal, and with Ctrl-C as
// the wish to cancel.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/console.h"
#include "cli/daemon_connection.h"
#include "cli/progress.h"
#include "daemon/client/client.h"
#include "daemon/protocol/client_messages.h"
#include "daemon/protocol/job_view.h"

namespace tiny_knn {

// How far an unfinished job is, as a bar, or why it waits: at most `width` columns, no line end.
std::string FormatFollowLine(const JobView& job, int width);

// What FormatProgressBar and FormatProgressJson make of a running job.
ProgressState ProgressOf(const JobView& job);

// A connection that outlives the daemon: when it breaks, one to the next daemon on the same socket
// is made. Thread-compatible; the console must outlive it.
class JobFollower {
 public:
  JobFollower(DaemonTexts daemon, Console& console);

  // Errors as ConnectToDaemon; Submit and Follow connect by themselves.
  absl::Status Connect();
  // Begins to, for who has something to do until then. Whether it came to something, Connect says.
  void BeginToConnect();

  // Submits, and submits again where the connection broke or nobody answered: the key makes one job
  // of both. Unavailable: the daemon takes no jobs, or none came back within kReconnectFor.
  absl::StatusOr<SubmitReply> Submit(const SubmitRequest& request);

  struct Options {
    // Hears of every state of every job, the first at once and the last before Follow returns, and
    // of why and how long it waits. May be empty. An error ends Follow.
    std::function<absl::Status(const JobView& job)> on_change;
    bool draw = false;  // the job on a line on the terminal; for one job
    // The first caught signal asks the daemon to cancel the jobs, the second one leaves. Else the
    // first one leaves.
    bool cancel_on_interrupt = false;
  };
  // The jobs, in the order of `ids`, when all are finished. Cancelled when a signal made it leave.
  // NotFound: one of them is not there, or was forgotten meanwhile.
  absl::StatusOr<std::vector<JobView>> Follow(const std::vector<int64_t>& ids,
                                              const Options& options);

  // Whether a signal made Follow ask for cancelling.
  bool asked_to_cancel() const { return asked_to_cancel_; }

 private:
  struct Round;  // of Follow
  absl::Status Reconnect(const absl::Status& why, std::chrono::steady_clock::time_point give_up);
  absl::Status Subscribe(Round& round);
  absl::Status Refresh(const std::vector<int64_t>& ids, Round& round);
  absl::Status ExplainForgotten(const absl::Status& not_found, Round& round);
  absl::Status TakePending(Round& round);
  absl::Status AskToCancel(const Round& round);
  absl::Status Interrupted(const Round& round);
  absl::Status Take(const JobView& heard, Round& round);

  const DaemonTexts daemon_;
  Console& console_;
  // Signals that were answered: waits end when there are more than that.
  std::shared_ptr<int> signals_heard_ = std::make_shared<int>(0);
  std::unique_ptr<DaemonClient> client_;
  // What BeginToConnect has come to, until Connect.
  std::optional<absl::StatusOr<std::unique_ptr<DaemonClient>>> begun_;
  TerminalLine line_;
  UserNames users_;
  bool asked_to_cancel_ = false;
};

}  // namespace tiny_knn
