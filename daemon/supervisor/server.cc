#include "daemon/supervisor/server.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <variant>

#include "boost/asio/post.hpp"
#include "boost/system/error_code.hpp"
#include "core/job/version.h"
#include "daemon/protocol/build_id.h"
#include "fmt/format.h"
#include "spdlog/spdlog.h"

namespace tiny_knn {
namespace {

using boost::asio::local::stream_protocol;
using boost::system::error_code;

// After accept failed, for want of descriptors mostly.
constexpr std::chrono::milliseconds kAcceptPause(100);
// Connections beyond the limits that are told so; more are closed without a word.
constexpr int64_t kRefusedAtOnce = 16;
constexpr int64_t kLogPieceBytes = int64_t{256} << 10;

bool IsFinishedJob(const Job* job) { return job == nullptr || IsFinished(job->state); }

}  // namespace

Server::Server(boost::asio::io_context& loop, int socket, const SupervisorOptions& options,
               Dispatcher& dispatcher, const Limits& limits)
    : loop_(loop),
      acceptor_(loop, stream_protocol(), socket),
      accept_timer_(loop),
      options_(options),
      dispatcher_(dispatcher),
      views_(dispatcher),
      limits_(limits) {}

void Server::Start() { Accept(); }

void Server::Accept() {
  acceptor_.async_accept([this](const error_code& error, stream_protocol::socket socket) {
    if (closing_) return;
    if (error) {
      // Whoever waits in line is served when a descriptor is free again.
      accept_timer_.expires_after(kAcceptPause);
      accept_timer_.async_wait([this](const error_code& stopped) {
        if (!stopped && !closing_) Accept();
      });
      return;
    }
    Take(std::move(socket));
    Accept();
  });
}

void Server::Take(Connection::Socket socket) {
  const absl::StatusOr<Peer> peer = PeerOf(socket.native_handle());
  if (!peer.ok()) {
    spdlog::warn("refused a connection: {}", std::string(peer.status().message()));
    return;
  }
  const auto known = connections_by_uid_.find(peer->uid);
  const int64_t before = known == connections_by_uid_.end() ? 0 : known->second;
  const int64_t connections = static_cast<int64_t>(connections_.size());
  // Being told why takes a descriptor for a moment, and those are counted too.
  if (before >= limits_.connections_per_uid + kRefusedAtOnce ||
      connections >= limits_.connections + kRefusedAtOnce) {
    return;
  }
  const Link link =
      std::make_shared<Connection>(std::move(socket), *peer, *this, limits_.connection);
  connections_.insert(link);
  int64_t& of_uid = connections_by_uid_[peer->uid];
  ++of_uid;
  if (peer->uid != geteuid() && peer->uid != 0) {
    return link->SendLast(
        {0, ErrorReply{ErrorCode::kNotAllowed,
                       fmt::format("this daemon serves user {} only; start your own with 'tiny-knn "
                                   "daemon --background'",
                                   geteuid())}});
  }
  if (of_uid > limits_.connections_per_uid ||
      static_cast<int64_t>(connections_.size()) > limits_.connections) {
    return link->SendLast(
        {0, ErrorReply{ErrorCode::kTooManyConnections,
                       fmt::format("{} connections are open, and no more than {} a user are "
                                   "allowed; close some",
                                   of_uid - 1, limits_.connections_per_uid)}});
  }
  link->Start();
}

void Server::OnClosed(const Link& link) {
  connections_.erase(link);
  subscribers_.erase(link);
  const auto of_uid = connections_by_uid_.find(link->peer().uid);
  if (of_uid != connections_by_uid_.end() && --of_uid->second == 0) {
    connections_by_uid_.erase(of_uid);
  }
  for (auto wait = waits_.begin(); wait != waits_.end();) {
    wait = wait->second->connection == link ? waits_.erase(wait) : std::next(wait);
  }
  if (closing_ && connections_.empty()) boost::asio::post(loop_, when_closed_);
}

void Server::Close(std::function<void()> then) {
  closing_ = true;
  when_closed_ = std::move(then);
  error_code ignored;
  acceptor_.close(ignored);
  accept_timer_.cancel();
  const std::set<Link> connections = connections_;
  for (const Link& link : connections) {
    link->SendLast({0, ErrorReply{ErrorCode::kStopping, "the daemon has ended"}});
  }
  if (connections_.empty()) boost::asio::post(loop_, when_closed_);
}

bool Server::Owns(const Peer& peer, const Job& job) const {
  return peer.uid == 0 || static_cast<int64_t>(peer.uid) == job.uid;
}

bool Server::MayRuleDaemon(const Peer& peer) const {
  return peer.uid == 0 || peer.uid == geteuid();
}

std::optional<ErrorReply> Server::CheckJobs(const Peer& peer,
                                            const std::vector<int64_t>& jobs) const {
  for (int64_t id : jobs) {
    const Job* job = dispatcher_.queue().Find(id);
    if (job == nullptr || !Owns(peer, *job)) {
      return ErrorReply{ErrorCode::kUnknownJob,
                        fmt::format("there is no job {}; 'tiny-knn status --all' lists them", id)};
    }
  }
  return std::nullopt;
}

void Server::OnJobChanged(int64_t job) {
  for (const Link& link : subscribers_) {
    const Job* found = dispatcher_.queue().Find(job);
    if (found != nullptr && Owns(link->peer(), *found)) link->MarkChanged(job);
  }
  if (IsFinishedJob(dispatcher_.queue().Find(job))) AnswerWaits(job);
}

std::optional<std::string> Server::EventFor(int64_t job, int64_t sequence) {
  std::optional<JobView> view = views_.Brief(job);
  if (!view) return std::nullopt;
  return EncodeEvent({sequence, *std::move(view)});
}

bool Server::AllFinished(const std::vector<int64_t>& jobs) const {
  return std::all_of(jobs.begin(), jobs.end(),
                     [&](int64_t id) { return IsFinishedJob(dispatcher_.queue().Find(id)); });
}

void Server::AnswerWaits(int64_t job) {
  const auto [begin, end] = waits_.equal_range(job);
  std::vector<std::shared_ptr<Wait>> over;
  for (auto wait = begin; wait != end; ++wait) {
    // One that names the job twice is there twice, side by side.
    if (!over.empty() && over.back() == wait->second) continue;
    if (AllFinished(wait->second->jobs)) over.push_back(wait->second);
  }
  for (const std::shared_ptr<Wait>& wait : over) {
    for (auto entry = waits_.begin(); entry != waits_.end();) {
      entry = entry->second == wait ? waits_.erase(entry) : std::next(entry);
    }
    wait->connection->EndWait();
    wait->connection->Send({wait->request, JobsReply{views_.Describe(wait->jobs), false}});
  }
}

void Server::OnRequest(const Link& link, Request request) {
  if (!link->greeted() && !std::holds_alternative<HelloRequest>(request.body)) {
    return link->SendLast(
        {request.id, ErrorReply{ErrorCode::kBadRequest,
                                fmt::format("'{}' came before hello, which is the first request on "
                                            "a connection",
                                            RequestName(request.body))}});
  }
  std::visit([&](const auto& body) { Handle(link, request.id, body); }, request.body);
}

void Server::ReplyWhenWritten(const Link& link, int64_t id, std::function<ReplyBody()> reply) {
  dispatcher_.WhenWritten([link, id, reply = std::move(reply)](const JobQueue::FlushResult&) {
    link->Send({id, reply()});
  });
}

void Server::ReplyWithJobs(const Link& link, int64_t id, std::vector<int64_t> jobs) {
  ReplyWhenWritten(link, id, [this, jobs = std::move(jobs)]() -> ReplyBody {
    return JobsReply{views_.Describe(jobs), false};
  });
}

void Server::Handle(const Link& link, int64_t id, const HelloRequest& request) {
  if (request.least_protocol > kGreatestProtocol || request.greatest_protocol < kLeastProtocol) {
    return link->SendLast(
        {id, ErrorReply{ErrorCode::kUnsupportedProtocol,
                        fmt::format("this daemon ({}) speaks protocols {} to {}, the client {} to "
                                    "{}; use programs of one version",
                                    kTinyKnnVersion, kLeastProtocol, kGreatestProtocol,
                                    request.least_protocol, request.greatest_protocol)}});
  }
  link->set_greeted();
  link->Send({id, HelloReply{std::min(kGreatestProtocol, request.greatest_protocol),
                             {"events", "keys", "logs"},
                             std::string(kBuildId),
                             static_cast<int64_t>(geteuid())}});
}

void Server::Handle(const Link& link, int64_t id, const SubmitRequest& request) {
  if (link->peer().uid != geteuid()) {
    return link->Send(
        {id, ErrorReply{ErrorCode::kNotAllowed,
                        fmt::format("this daemon runs jobs as user {} only", geteuid())}});
  }
  const int64_t uid = static_cast<int64_t>(link->peer().uid);
  std::variant<JobQueue::Submitted, ErrorReply> submitted = dispatcher_.Submit(uid, request);
  if (auto* error = std::get_if<ErrorReply>(&submitted)) return link->Send({id, std::move(*error)});
  const JobQueue::Submitted job = std::get<JobQueue::Submitted>(submitted);
  dispatcher_.WhenWritten([this, link, id, job](const JobQueue::FlushResult& written) {
    const auto& undone = written.undone_submissions;
    std::optional<JobView> view = views_.Brief(job.job);
    if (std::find(undone.begin(), undone.end(), job.job) == undone.end() && view) {
      return link->Send({id, SubmitReply{*std::move(view), job.existed}});
    }
    const std::optional<ErrorReply> refusal = dispatcher_.queue().Refusal();
    link->Send({id, refusal.value_or(ErrorReply{
                        ErrorCode::kJournalFull,
                        fmt::format("the job could not be written down and is not queued: {}",
                                    std::string(written.status.message()))})});
  });
}

void Server::Handle(const Link& link, int64_t id, const StatusRequest& request) {
  if (auto error = CheckJobs(link->peer(), request.jobs)) return link->Send({id, *error});
  ReplyWithJobs(link, id, request.jobs);
}

void Server::Handle(const Link& link, int64_t id, const ListRequest& request) {
  ReplyWhenWritten(link, id, [this, link, request]() -> ReplyBody {
    std::vector<int64_t> jobs;
    bool more = false;
    const auto& all = dispatcher_.queue().jobs();
    for (auto job = all.upper_bound(request.after_job); job != all.end(); ++job) {
      if (!Owns(link->peer(), job->second)) continue;
      if (!request.finished && IsFinished(job->second.state)) continue;
      if (static_cast<int64_t>(jobs.size()) == request.limit) {
        more = true;
        break;
      }
      jobs.push_back(job->first);
    }
    return JobsReply{views_.Describe(jobs), more};
  });
}

void Server::Handle(const Link& link, int64_t id, const WaitRequest& request) {
  if (auto error = CheckJobs(link->peer(), request.jobs)) return link->Send({id, *error});
  if (AllFinished(request.jobs)) return ReplyWithJobs(link, id, request.jobs);
  if (!link->BeginWait()) {
    return link->Send({id, ErrorReply{ErrorCode::kBadRequest,
                                      "too many waits on one connection; wait for several jobs in "
                                      "one request"}});
  }
  const auto wait = std::make_shared<Wait>(Wait{link, id, request.jobs});
  for (int64_t job : request.jobs) {
    if (!IsFinishedJob(dispatcher_.queue().Find(job))) waits_.emplace(job, wait);
  }
}

void Server::Handle(const Link& link, int64_t id, const SubscribeRequest& request) {
  if (auto error = CheckJobs(link->peer(), request.jobs)) return link->Send({id, *error});
  dispatcher_.WhenWritten([this, link, id, request](const JobQueue::FlushResult&) {
    std::vector<int64_t> first = request.jobs;
    if (first.empty()) {
      for (const auto& [job, found] : dispatcher_.queue().jobs()) {
        if (Owns(link->peer(), found)) first.push_back(job);
      }
    }
    link->Send({id, SubscribeReply{0}});
    if (connections_.count(link) > 0) subscribers_.insert(link);
    link->Subscribe(request.jobs, first);
  });
}

void Server::Handle(const Link& link, int64_t id, const CancelRequest& request) {
  if (auto error = CheckJobs(link->peer(), request.jobs)) return link->Send({id, *error});
  for (int64_t job : request.jobs) dispatcher_.Cancel(job);
  ReplyWithJobs(link, id, request.jobs);
}

void Server::Handle(const Link& link, int64_t id, const LogRequest& request) {
  if (auto error = CheckJobs(link->peer(), {request.job})) return link->Send({id, *error});
  ReplyWhenWritten(link, id, [this, request]() -> ReplyBody {
    const bool finished = IsFinishedJob(dispatcher_.queue().Find(request.job));
    absl::StatusOr<JobLogs::Piece> piece =
        dispatcher_.logs().Read(request.job, request.offset, kLogPieceBytes);
    if (!piece.ok()) {
      return ErrorReply{ErrorCode::kInternal, std::string(piece.status().message())};
    }
    const bool end = piece->text.empty();
    return LogReply{std::move(piece->text), piece->next_offset, finished && end};
  });
}

void Server::Handle(const Link& link, int64_t id, const CleanRequest&) {
  const int64_t removed = dispatcher_.Clean(static_cast<int64_t>(link->peer().uid));
  ReplyWhenWritten(link, id, [removed]() -> ReplyBody { return CleanReply{removed}; });
}

void Server::Handle(const Link& link, int64_t id, const StatsRequest&) {
  ReplyWhenWritten(link, id, [this]() -> ReplyBody { return Stats(); });
}

void Server::Handle(const Link& link, int64_t id, const DrainRequest& request) {
  if (!MayRuleDaemon(link->peer())) {
    return link->Send(
        {id, ErrorReply{ErrorCode::kNotAllowed, "only the daemon's user may drain it"}});
  }
  dispatcher_.SetDraining(!request.undo);
  ReplyWhenWritten(link, id, [] { return EmptyReply{}; });
}

void Server::Handle(const Link& link, int64_t id, const ShutdownRequest& request) {
  if (!MayRuleDaemon(link->peer())) {
    return link->Send(
        {id, ErrorReply{ErrorCode::kNotAllowed, "only the daemon's user may end it"}});
  }
  spdlog::info("asked to shut down{}", request.now ? " now" : "");
  ReplyWhenWritten(link, id, [] { return EmptyReply{}; });
  dispatcher_.Stop(request.now);
}

StatsReply Server::Stats() const {
  StatsReply stats;
  stats.version = std::string(kTinyKnnVersion);
  stats.pid = getpid();
  stats.uid = static_cast<int64_t>(geteuid());
  stats.uptime_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
  stats.device = dispatcher_.last_device().empty() ? options_.device : dispatcher_.last_device();
  const std::optional<int64_t> running = dispatcher_.runner().running_job();
  stats.device_state = running                             ? fmt::format("job {}", *running)
                       : dispatcher_.runner().has_worker() ? "idle"
                                                           : "released";
  stats.max_memory_bytes = options_.max_memory_bytes;
  stats.warm_docs = dispatcher_.runner().warm_docs();
  for (const auto& [id, job] : dispatcher_.queue().jobs()) {
    if (job.state == JobState::kQueued) {
      ++stats.queued;
    } else if (job.state == JobState::kRunning) {
      ++stats.running;
    } else {
      ++stats.finished;
    }
  }
  stats.connections = static_cast<int64_t>(connections_.size());
  stats.draining = dispatcher_.draining();
  stats.stopping = dispatcher_.stopping();
  stats.journal = dispatcher_.JournalState();
  stats.socket_path = options_.socket_path;
  stats.state_folder = options_.state_folder;
  return stats;
}

}  // namespace tiny_knn
