// The daemon's clients: who may connect, what they ask, and what they are told.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>  // boost/asio/awaitable.hpp of 1.74 forgets it
#include <vector>

#include "boost/asio/io_context.hpp"
#include "boost/asio/local/stream_protocol.hpp"
#include "boost/asio/steady_timer.hpp"
#include "daemon/protocol/client_messages.h"
#include "daemon/supervisor/connection.h"
#include "daemon/supervisor/dispatcher.h"
#include "daemon/supervisor/job_views.h"
#include "daemon/supervisor/options.h"
#include "daemon/supervisor/peer.h"

namespace tiny_knn {

// Event loop only.
class Server : public ConnectionHandler {
 public:
  struct Limits {
    int64_t connections_per_uid = 512;
    int64_t connections = 4096;  // lower where the process may not have so many descriptors
    Connection::Limits connection;
  };

  // Listens on `socket` (owned from now on), a non-blocking listening descriptor.
  Server(boost::asio::io_context& loop, int socket, const SupervisorOptions& options,
         Dispatcher& dispatcher, const Limits& limits);

  void Start();
  // Takes no more connections, ends those there are once they have taken what was said to them, and
  // calls `then` when none is left.
  void Close(std::function<void()> then);

  // To all who subscribed to it or wait for it.
  void OnJobChanged(int64_t job);

  void OnRequest(const std::shared_ptr<Connection>& connection, Request request) override;
  std::optional<std::string> EventFor(int64_t job, int64_t sequence) override;
  void OnClosed(const std::shared_ptr<Connection>& connection) override;

 private:
  using Link = std::shared_ptr<Connection>;
  struct Wait {
    Link connection;
    int64_t request = 0;
    std::vector<int64_t> jobs;
  };

  void Accept();
  void Take(Connection::Socket socket);
  // One for each request, by its body's type. Replies are sent when all that they tell is written
  // down.
  void Handle(const Link& link, int64_t id, const HelloRequest& request);
  void Handle(const Link& link, int64_t id, const SubmitRequest& request);
  void Handle(const Link& link, int64_t id, const StatusRequest& request);
  void Handle(const Link& link, int64_t id, const ListRequest& request);
  void Handle(const Link& link, int64_t id, const WaitRequest& request);
  void Handle(const Link& link, int64_t id, const SubscribeRequest& request);
  void Handle(const Link& link, int64_t id, const CancelRequest& request);
  void Handle(const Link& link, int64_t id, const LogRequest& request);
  void Handle(const Link& link, int64_t id, const CleanRequest& request);
  void Handle(const Link& link, int64_t id, const StatsRequest& request);
  void Handle(const Link& link, int64_t id, const DrainRequest& request);
  void Handle(const Link& link, int64_t id, const ShutdownRequest& request);
  void ReplyWhenWritten(const Link& link, int64_t id, std::function<ReplyBody()> reply);
  void ReplyWithJobs(const Link& link, int64_t id, std::vector<int64_t> jobs);

  // Whether the peer may see and change the job. One that may not see it is told that it is
  // unknown.
  bool Owns(const Peer& peer, const Job& job) const;
  bool MayRuleDaemon(const Peer& peer) const;
  std::optional<ErrorReply> CheckJobs(const Peer& peer, const std::vector<int64_t>& jobs) const;
  StatsReply Stats() const;
  void AnswerWaits(int64_t job);
  bool AllFinished(const std::vector<int64_t>& jobs) const;

  boost::asio::io_context& loop_;
  boost::asio::local::stream_protocol::acceptor acceptor_;
  boost::asio::steady_timer accept_timer_;
  const SupervisorOptions options_;
  Dispatcher& dispatcher_;
  const JobViews views_;
  const Limits limits_;
  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  std::set<Link> connections_;
  std::set<Link> subscribers_;
  std::map<uid_t, int64_t> connections_by_uid_;
  std::multimap<int64_t, std::shared_ptr<Wait>> waits_;  // by each job waited for
  bool closing_ = false;
  std::function<void()> when_closed_;
};

}  // namespace tiny_knn
