// The daemon's clients: who may connect, what they ask, and what they are told.
#pragma once

#include <unistd.h>

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
#include "daemon/supervisor/authority.h"
#include "daemon/supervisor/connection.h"
#include "daemon/supervisor/dispatcher.h"
#include "daemon/supervisor/job_views.h"
#include "daemon/supervisor/options.h"
#include "daemon/supervisor/peer.h"
#include "daemon/supervisor/turns.h"
#include "daemon/supervisor/waits.h"

namespace tiny_knn {

// Event loop only.
class Server : public ConnectionHandler {
 public:
  struct Limits {
    int64_t connections_per_uid = 512;   // of those who may drain the daemon
    int64_t connections_per_user = 128;  // of each of the others; at most connections_per_uid
    int64_t connections = 4096;          // lower where the process may not have so many descriptors
    // Of these places, so many are root's in a daemon of root, but no more than a quarter.
    int64_t connections_kept_for_root = 64;
    // Of one user, over all connections: ids waited for, and bytes half read or not yet taken.
    int64_t ids_waited_for = 20000;
    int64_t buffered_bytes = int64_t{64} << 20;
    Connection::Limits connection = {};
  };
  // Who the daemon is, and who is on the other end of a socket.
  struct Identity {
    uid_t daemon = geteuid();
    std::function<absl::StatusOr<Peer>(int socket)> peer_of = PeerOf;
  };

  // Listens on `socket` (owned from now on), a non-blocking listening descriptor.
  Server(boost::asio::io_context& loop, int socket, const SupervisorOptions& options,
         Dispatcher& dispatcher, const Limits& limits, const Identity& identity);
  Server(boost::asio::io_context& loop, int socket, const SupervisorOptions& options,
         Dispatcher& dispatcher, const Limits& limits)
      : Server(loop, socket, options, dispatcher, limits, Identity{}) {}

  void Start();
  // Takes no more connections, ends those there are once they have taken what was said to them, and
  // calls `then` when none is left.
  void Close(std::function<void()> then);

  // To all who subscribed to it or wait for it.
  void OnJobChanged(int64_t job);

  void OnRequest(const std::shared_ptr<Connection>& link, Request request) override;
  std::optional<std::string> EventFor(int64_t job, int64_t sequence) override;
  void OnBuffered(const std::shared_ptr<Connection>& link, int64_t more) override;
  void OnClosed(const std::shared_ptr<Connection>& link) override;

 private:
  using Link = std::shared_ptr<Connection>;
  struct User {
    int64_t connections = 0;
    int64_t buffered_bytes = 0;
  };

  void Accept();
  void Take(Connection::Socket socket);
  int64_t MostConnectionsOf(Role role) const;  // of one uid
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
  // For a reply that takes time: when it is its user's turn, and the reply before is on its way.
  // Nothing is computed for a peer that is gone by then.
  void ReplyInTurn(const Link& link, int64_t id, std::function<ReplyBody()> reply);
  void TakeTurn();
  // In turn, to this request, as far as the peer may see those jobs then.
  void ReplyWithJobs(const Link& link, int64_t id, const RequestBody& request,
                     std::vector<int64_t> jobs);
  std::vector<JobView> ViewsFor(const Peer& peer, const RequestBody& request,
                                const std::vector<int64_t>& jobs) const;

  bool Owns(const Peer& peer, const Job& job) const { return authority_.Owns(peer, job.uid); }
  // Whether the request may name all these jobs. One that it may not is unknown.
  std::optional<ErrorReply> CheckJobs(const Peer& peer, const RequestBody& request,
                                      const std::vector<int64_t>& jobs) const;
  StatsReply Stats(const Peer& peer) const;
  void AnswerWaits(int64_t job);

  boost::asio::io_context& loop_;
  boost::asio::local::stream_protocol::acceptor acceptor_;
  boost::asio::steady_timer accept_timer_;
  const SupervisorOptions options_;
  const Identity identity_;
  const Authority authority_;
  Dispatcher& dispatcher_;
  const JobViews views_;
  const Limits limits_;
  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  std::set<Link> connections_;
  std::set<Link> subscribers_;
  std::map<uid_t, User> users_;  // those who are connected
  Waits waits_;
  Turns turns_;
  bool turn_taken_ = false;  // the reply whose turn it is waits for what it tells to be written
  bool closing_ = false;
  std::function<void()> when_closed_;
};

}  // namespace tiny_knn
