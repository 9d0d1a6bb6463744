#include "daemon/worker/worker.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/io/atomic_file.h"
#include "core/io/unique_fd.h"
#include "core/job/job_paths.h"
#include "daemon/protocol/worker_messages.h"
#include "daemon/worker/supervisor_link.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

constexpr std::chrono::milliseconds kBetweenProgress(100);

// Passes on what a job says.
class LinkListener : public JobListener {
 public:
  LinkListener(SupervisorLink& link, int64_t job, const std::atomic<bool>& cancelled)
      : link_(link), job_(job), cancelled_(cancelled) {}

  void Report(int64_t pairs_done, int64_t pairs_total) override {
    const Clock::time_point now = Clock::now();
    if (last_sent_ && now - *last_sent_ < kBetweenProgress) return;
    last_sent_ = now;
    link_.SendIfRoom(
        WorkerProgress{.job = job_, .pairs_done = pairs_done, .pairs_total = pairs_total});
  }
  bool cancelled() const override { return cancelled_.load(std::memory_order_relaxed); }
  void Log(const std::vector<std::string>& lines) override {
    std::vector<FromWorker> messages;
    for (const std::string& line : lines) {
      messages.emplace_back(WorkerLog{.job = job_, .text = line});
    }
    link_.Send(messages);
  }

 private:
  using Clock = std::chrono::steady_clock;
  SupervisorLink& link_;
  const int64_t job_;
  const std::atomic<bool>& cancelled_;
  std::optional<Clock::time_point> last_sent_;
};

// The process that made the socketpair has to be the parent still: had it died before prctl, nobody
// would tell.
absl::Status DieWithParent(int socket) {
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) {
    return absl::InternalError("cannot ask to die with the supervisor");
  }
  ucred peer;
  socklen_t size = sizeof(peer);
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return absl::InvalidArgumentError(
        fmt::format("descriptor {} is not a socket; the worker is started by tiny-knnd", socket));
  }
  if (peer.pid != getppid()) return absl::UnavailableError("the supervisor is gone");
  return absl::OkStatus();
}

void Remove(const WorkerRemove& remove, SupervisorLink& link) {
  // Without k the default name is not known; clients fill both in.
  const absl::Status removed = AtomicFile::RemoveLeftover(
      ResolvedOutputPath(remove.spec, remove.spec.k.value_or(0)), remove.temporary_tag);
  if (!removed.ok()) {
    link.Send(WorkerLog{.job = remove.job,
                        .text = fmt::format("note: {}", std::string(removed.message()))});
  }
  link.Send(WorkerRemoved{.job = remove.job});
}

}  // namespace

absl::Status RunWorkerWith(int socket, const WarmRunnerOptions& runner_options) {
  UniqueFd owned(socket);
  // The supervisor hears of Ctrl-C too and decides; a peer that is gone and a limit on file sizes
  // are errors of the call.
  for (const int number : {SIGINT, SIGHUP, SIGPIPE, SIGXFSZ}) signal(number, SIG_IGN);
  const absl::Status parent = DieWithParent(socket);
  if (!parent.ok()) return parent;

  WarmRunner runner(runner_options);
  SupervisorLink link(std::move(owned));
  while (const std::optional<WorkerTask> task = link.Next([&runner] { runner.Rest(); })) {
    if (const auto* run = std::get_if<WorkerRun>(&task->message)) {
      LinkListener listener(link, run->job, *task->cancelled);
      link.Send(runner.Run(*run, listener));
    } else {
      Remove(std::get<WorkerRemove>(task->message), link);
    }
  }
  return link.status();
}

absl::Status RunWorker(const WorkerOptions& options) {
  WarmRunnerOptions runner;
  runner.device = options.device;
  return RunWorkerWith(options.socket, runner);
}

}  // namespace tiny_knn
