#include "daemon/supervisor/server.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
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
               Dispatcher& dispatcher, const Limits& limits, const Identity& identity)
    : loop_(loop),
      acceptor_(loop, stream_protocol(), socket),
      accept_timer_(loop),
      options_(options),
      identity_(identity),
      authority_(identity.daemon, options.group, options.admin_group),
      dispatcher_(dispatcher),
      views_(dispatcher),
      limits_(limits),
      waits_(limits.ids_waited_for) {}

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

int64_t Server::MostConnectionsOf(Role role) const {
  switch (role) {
    case Role::kStranger:
      return 0;
    case Role::kUser:
      return std::min(limits_.connections_per_user, limits_.connections_per_uid);
    case Role::kAdmin:
    case Role::kKeeper:
    case Role::kRoot:
      break;
  }
  return limits_.connections_per_uid;
}

void Server::Take(Connection::Socket socket) {
  const absl::StatusOr<Peer> peer = identity_.peer_of(socket.native_handle());
  if (!peer.ok()) {
    spdlog::warn("refused a connection: {}", std::string(peer.status().message()));
    return;
  }
  const Role role = authority_.RoleOf(*peer);
  const int64_t most_of_uid = MostConnectionsOf(role);
  const bool keeps_places = identity_.daemon == 0 && role != Role::kRoot;
  const int64_t most =
      limits_.connections -
      (keeps_places ? std::min(limits_.connections_kept_for_root, limits_.connections / 4) : 0);
  const auto known = users_.find(peer->uid);
  const int64_t of_uid = known == users_.end() ? 0 : known->second.connections;
  const int64_t connections = static_cast<int64_t>(connections_.size());
  // Being told why takes a descriptor for a moment, and those are counted too.
  if (of_uid >= most_of_uid + kRefusedAtOnce || connections >= most + kRefusedAtOnce) return;
  const Link link =
      std::make_shared<Connection>(std::move(socket), *peer, *this, limits_.connection);
  connections_.insert(link);
  ++users_[peer->uid].connections;
  if (auto error = authority_.CheckConnection(*peer)) return link->SendLast({0, *error});
  if (of_uid >= most_of_uid) {
    return link->SendLast(
        {0, ErrorReply{ErrorCode::kTooManyConnections,
                       fmt::format("{} connections are open, and no more than {} a user are "
                                   "allowed; close some",
                                   of_uid, most_of_uid)}});
  }
  if (connections >= most) {
    return link->SendLast(
        {0, ErrorReply{ErrorCode::kTooManyConnections,
                       fmt::format("{} connections of all users are open, as many as are allowed; "
                                   "try again when some are closed",
                                   connections)}});
  }
  link->Start();
}

void Server::OnBuffered(const Link& link, int64_t more) {
  const auto user = users_.find(link->peer().uid);
  if (user == users_.end()) return;
  user->second.buffered_bytes += more;
  if (more <= 0 || user->second.buffered_bytes <= limits_.buffered_bytes) return;
  spdlog::info("user {} does not take what was asked for: {} bytes wait; closing a connection",
               user->first, user->second.buffered_bytes);
  // Not from within what the connection is doing.
  boost::asio::post(loop_, [link] { link->Close(); });
}

void Server::OnClosed(const Link& link) {
  connections_.erase(link);
  subscribers_.erase(link);
  waits_.Forget(link);
  turns_.Forget(link->peer().uid, link);
  const auto user = users_.find(link->peer().uid);
  if (user != users_.end() && --user->second.connections == 0) users_.erase(user);
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

std::optional<ErrorReply> Server::CheckJobs(const Peer& peer, const RequestBody& request,
                                            const std::vector<int64_t>& jobs) const {
  for (int64_t id : jobs) {
    const Job* job = dispatcher_.queue().Find(id);
    if (job == nullptr || !authority_.MayName(peer, request, job->uid)) {
      return ErrorReply{ErrorCode::kUnknownJob,
                        fmt::format("there is no job {}; 'tiny-knn status --all' lists them", id)};
    }
  }
  return std::nullopt;
}

std::vector<JobView> Server::ViewsFor(const Peer& peer, const RequestBody& request,
                                      const std::vector<int64_t>& jobs) const {
  std::vector<JobView> seen;
  for (JobView& view : views_.Describe(jobs)) {
    const Sight sight = authority_.SightOf(peer, request, view.uid);
    if (sight == Sight::kNothing) continue;
    seen.push_back(sight == Sight::kWhole ? std::move(view) : RedactedView(view));
  }
  return seen;
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

void Server::AnswerWaits(int64_t job) {
  for (const Waits::Wait& wait : waits_.Finish(job)) {
    wait.connection->EndWait();
    wait.connection->Send(
        {wait.request,
         JobsReply{ViewsFor(wait.connection->peer(), WaitRequest{}, wait.jobs), false}});
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
  if (auto error = authority_.CheckRequest(link->peer(), request.body)) {
    return link->Send({request.id, *error});
  }
  std::visit([&](const auto& body) { Handle(link, request.id, body); }, request.body);
}

void Server::ReplyWhenWritten(const Link& link, int64_t id, std::function<ReplyBody()> reply) {
  dispatcher_.WhenWritten([link, id, reply = std::move(reply)](const JobQueue::FlushResult&) {
    link->Send({id, reply()});
  });
}

void Server::ReplyInTurn(const Link& link, int64_t id, std::function<ReplyBody()> reply) {
  turns_.Add(link->peer().uid, link, [this, link, id, reply = std::move(reply)] {
    turn_taken_ = true;
    dispatcher_.WhenWritten([this, link, id, reply](const JobQueue::FlushResult&) {
      if (connections_.count(link) > 0) link->Send({id, reply()});
      turn_taken_ = false;
      // Behind what has come meanwhile.
      boost::asio::post(loop_, [this] { TakeTurn(); });
    });
  });
  TakeTurn();
}

void Server::TakeTurn() {
  if (turn_taken_) return;
  if (const std::optional<Turns::Answer> answer = turns_.Next()) (*answer)();
}

void Server::ReplyWithJobs(const Link& link, int64_t id, const RequestBody& request,
                           std::vector<int64_t> jobs) {
  ReplyInTurn(link, id, [this, link, request, jobs = std::move(jobs)]() -> ReplyBody {
    return JobsReply{ViewsFor(link->peer(), request, jobs), false};
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
                             {"events", "everyone", "keys", "logs"},
                             std::string(kBuildId),
                             static_cast<int64_t>(identity_.daemon)}});
}

void Server::Handle(const Link& link, int64_t id, const SubmitRequest& request) {
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
  if (auto error = CheckJobs(link->peer(), request, request.jobs)) return link->Send({id, *error});
  ReplyWithJobs(link, id, request, request.jobs);
}

void Server::Handle(const Link& link, int64_t id, const ListRequest& request) {
  ReplyInTurn(link, id, [this, link, request]() -> ReplyBody {
    std::vector<int64_t> jobs;
    bool more = false;
    const auto& all = dispatcher_.queue().jobs();
    for (auto job = all.upper_bound(request.after_job); job != all.end(); ++job) {
      if (authority_.SightOf(link->peer(), request, job->second.uid) == Sight::kNothing) continue;
      if (!request.finished && IsFinished(job->second.state)) continue;
      if (static_cast<int64_t>(jobs.size()) == request.limit) {
        more = true;
        break;
      }
      jobs.push_back(job->first);
    }
    return JobsReply{ViewsFor(link->peer(), request, jobs), more};
  });
}

void Server::Handle(const Link& link, int64_t id, const WaitRequest& request) {
  if (auto error = CheckJobs(link->peer(), request, request.jobs)) return link->Send({id, *error});
  std::vector<int64_t> unfinished;
  std::copy_if(request.jobs.begin(), request.jobs.end(), std::back_inserter(unfinished),
               [this](int64_t job) { return !IsFinishedJob(dispatcher_.queue().Find(job)); });
  if (unfinished.empty()) return ReplyWithJobs(link, id, request, request.jobs);
  const uid_t uid = link->peer().uid;
  if (!waits_.HasRoom(uid, std::ssize(request.jobs))) {
    return link->Send({id, ErrorReply{ErrorCode::kTooManyJobs,
                                      fmt::format("at most {} jobs may be waited for by one user "
                                                  "at once; subscribe to all instead",
                                                  limits_.ids_waited_for)}});
  }
  if (!link->BeginWait()) {
    return link->Send({id, ErrorReply{ErrorCode::kBadRequest,
                                      "too many waits on one connection; wait for several jobs in "
                                      "one request"}});
  }
  waits_.Add({link, uid, id, request.jobs}, unfinished);
}

void Server::Handle(const Link& link, int64_t id, const SubscribeRequest& request) {
  if (auto error = CheckJobs(link->peer(), request, request.jobs)) return link->Send({id, *error});
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
  if (auto error = CheckJobs(link->peer(), request, request.jobs)) return link->Send({id, *error});
  for (int64_t job : request.jobs) dispatcher_.Cancel(job);
  ReplyWithJobs(link, id, request, request.jobs);
}

void Server::Handle(const Link& link, int64_t id, const LogRequest& request) {
  if (auto error = CheckJobs(link->peer(), request, {request.job})) {
    return link->Send({id, *error});
  }
  ReplyInTurn(link, id, [this, request]() -> ReplyBody {
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
  ReplyWhenWritten(link, id, [this, link]() -> ReplyBody { return Stats(link->peer()); });
}

void Server::Handle(const Link& link, int64_t id, const DrainRequest& request) {
  dispatcher_.SetDraining(!request.undo);
  ReplyWhenWritten(link, id, [] { return EmptyReply{}; });
}

void Server::Handle(const Link& link, int64_t id, const ShutdownRequest& request) {
  spdlog::info("user {} asked to shut down{}", link->peer().uid, request.now ? " now" : "");
  ReplyWhenWritten(link, id, [] { return EmptyReply{}; });
  dispatcher_.Stop(request.now);
}

StatsReply Server::Stats(const Peer& peer) const {
  StatsReply stats;
  stats.version = std::string(kTinyKnnVersion);
  stats.pid = getpid();
  stats.uid = static_cast<int64_t>(identity_.daemon);
  stats.uptime_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
  stats.device = dispatcher_.last_device().empty() ? options_.device : dispatcher_.last_device();
  const std::optional<int64_t> running = dispatcher_.runner().running_job();
  stats.device_state = running                             ? fmt::format("job {}", *running)
                       : dispatcher_.runner().has_worker() ? "idle"
                                                           : "released";
  stats.max_memory_bytes = options_.max_memory_bytes;
  if (const Job* job = running ? dispatcher_.queue().Find(*running) : nullptr) {
    stats.running_uid = job->uid;
  }
  const std::optional<int64_t> worker_uid = dispatcher_.runner().worker_uid();
  if (worker_uid && authority_.Owns(peer, *worker_uid)) {
    stats.warm_docs = dispatcher_.runner().warm_docs();
  }
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
