#include "daemon/supervisor/supervisor.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <exception>
#include <memory>
#include <string>
#include <utility>

#include "boost/asio/io_context.hpp"
#include "boost/asio/signal_set.hpp"
#include "boost/asio/steady_timer.hpp"
#include "boost/system/error_code.hpp"
#include "core/job/version.h"
#include "daemon/queue/job_log.h"
#include "daemon/queue/job_queue.h"
#include "daemon/queue/journal.h"
#include "daemon/supervisor/dispatcher.h"
#include "daemon/supervisor/listen_socket.h"
#include "daemon/supervisor/server.h"
#include "daemon/supervisor/service_status.h"
#include "fmt/format.h"
#include "spdlog/spdlog.h"

namespace tiny_knn {
namespace {

using boost::system::error_code;

// For clients to take their last replies.
constexpr std::chrono::milliseconds kFarewell(1500);
// Descriptors that are not connections': the journal's, the logs', a worker's.
constexpr int64_t kOwnDescriptors = 64;

double WallClock() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// Raises the limit of open files as far as is allowed, and returns how many connections fit.
int64_t MostConnections() {
  constexpr int64_t kWanted = 4096;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 256;
  const rlim_t wanted = std::min<rlim_t>(limit.rlim_max, kWanted + kOwnDescriptors);
  if (limit.rlim_cur < wanted) {
    limit.rlim_cur = wanted;
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
  }
  const int64_t allowed = static_cast<int64_t>(std::min<rlim_t>(limit.rlim_cur, 1 << 20));
  return std::clamp<int64_t>(allowed - kOwnDescriptors, 16, kWanted);
}

class Supervisor : public DispatcherListener {
 public:
  // `socket` lives as long as this, and is removed at the end.
  Supervisor(const SupervisorOptions& options, ServiceManager manager,
             std::unique_ptr<ListenSocket> socket, WorkerBinary binary,
             std::unique_ptr<JobQueue> queue, JobLogs logs)
      : socket_(std::move(socket)),
        dispatcher_(loop_, options, std::move(binary), WorkerEnvironment(environ), std::move(queue),
                    std::move(logs), *this),
        server_(loop_, socket_->ReleaseDescriptor(), options, dispatcher_, ServerLimits()),
        service_(loop_, std::move(manager), [this] { return Now(); }),
        signals_(loop_, SIGTERM, SIGINT),
        farewell_(loop_) {}

  void Run(const std::function<void()>& on_ready) {
    WatchSignals();
    server_.Start();
    dispatcher_.Start();
    service_.Ready();
    on_ready();
    loop_.run();
  }

  void OnJobChanged(int64_t job) override {
    service_.Changed();
    server_.OnJobChanged(job);
  }

  void OnStopped() override {
    service_.Changed();
    server_.Close([this] { loop_.stop(); });
    farewell_.expires_after(kFarewell);
    farewell_.async_wait([this](const error_code&) { loop_.stop(); });
  }

 private:
  static Server::Limits ServerLimits() {
    Server::Limits limits;
    limits.connections = MostConnections();
    limits.connections_per_uid = std::min(limits.connections_per_uid, limits.connections);
    return limits;
  }

  ServiceStatus::State Now() const {
    return {.running = dispatcher_.runner().running_job(),
            .waiting = dispatcher_.queue().scheduler().size(),
            .draining = dispatcher_.draining(),
            .stopping = dispatcher_.stopping()};
  }

  void WatchSignals() {
    signals_.async_wait([this](const error_code& error, int number) {
      if (error) return;
      spdlog::info("caught signal {}: stopping{}", number, dispatcher_.stopping() ? " now" : "");
      dispatcher_.Stop(/*now=*/dispatcher_.stopping());
      service_.Changed();
      WatchSignals();
    });
  }

  boost::asio::io_context loop_{1};
  std::unique_ptr<ListenSocket> socket_;
  Dispatcher dispatcher_;
  Server server_;
  ServiceStatus service_;
  boost::asio::signal_set signals_;
  boost::asio::steady_timer farewell_;
};

}  // namespace

absl::Status RunSupervisor(const SupervisorOptions& options, ServiceLink service,
                           const SupervisorCallbacks& callbacks) {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGHUP, SIG_IGN);
  // Whoever started us may have ignored it, and then nobody would hear how a worker ended.
  std::signal(SIGCHLD, SIG_DFL);
  umask(077);
  absl::Status status = EnsurePrivateFolder(options.state_folder);
  if (!status.ok()) return status;
  // The state first: two daemons with one queue would be worse than two with one socket.
  absl::StatusOr<FileLock> lock =
      FileLock::Take(options.state_folder + "/lock", options.state_folder);
  if (!lock.ok()) return lock.status();
  absl::StatusOr<std::unique_ptr<ListenSocket>> socket =
      service.socket.exists()
          ? ListenSocket::Adopt(std::move(service.socket.socket), service.socket.path)
          : ListenSocket::Open(options.socket_path, options.group);
  if (!socket.ok()) return socket.status();
  status = callbacks.on_sole();
  if (!status.ok()) return status;
  absl::StatusOr<WorkerBinary> binary = OpenWorkerBinary(options.worker_path);
  if (!binary.ok()) return binary.status();
  absl::StatusOr<std::unique_ptr<Journal>> journal = Journal::Open(options.state_folder);
  if (!journal.ok()) return journal.status();
  absl::StatusOr<std::unique_ptr<JobQueue>> queue =
      JobQueue::Open(*std::move(journal), QueueLimits{}, WallClock);
  if (!queue.ok()) return queue.status();
  absl::StatusOr<JobLogs> logs = JobLogs::Open(options.state_folder + "/logs");
  if (!logs.ok()) return logs.status();

  spdlog::info("tiny-knnd {} (pid {}) listens on {}, state in {}, {} jobs known, {} waiting",
               kTinyKnnVersion, getpid(), options.socket_path, options.state_folder,
               (*queue)->jobs().size(), (*queue)->scheduler().size());
  // Exceptions of the standard library and of the event loop: nothing of ours throws.
  try {
    Supervisor supervisor(options, std::move(service.manager), *std::move(socket),
                          *std::move(binary), *std::move(queue), *std::move(logs));
    supervisor.Run(callbacks.on_ready);
  } catch (const std::exception& error) {
    spdlog::critical("ended by an exception: {}", error.what());
    return absl::InternalError(error.what());
  }
  spdlog::info("tiny-knnd has ended");
  return absl::OkStatus();
}

}  // namespace tiny_knn
