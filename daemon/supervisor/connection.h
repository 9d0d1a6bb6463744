// One client's connection: lines in, lines out, and events for those who subscribed, in bounded
// memory whatever the client does or leaves undone.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>  // boost/asio/awaitable.hpp of 1.74 forgets it
#include <vector>

#include "boost/asio/io_context.hpp"
#include "boost/asio/local/stream_protocol.hpp"
#include "boost/asio/steady_timer.hpp"
#include "daemon/protocol/client_messages.h"
#include "daemon/protocol/line_decoder.h"
#include "daemon/supervisor/peer.h"

namespace tiny_knn {

class Connection;

// Whom connections talk to. All calls come from the event loop.
class ConnectionHandler {
 public:
  virtual ~ConnectionHandler() = default;
  virtual void OnRequest(const std::shared_ptr<Connection>& connection, Request request) = 0;
  // The event that says how the job is now, as a line; nothing when there is no such job any more.
  virtual std::optional<std::string> EventFor(int64_t job, int64_t sequence) = 0;
  // So many bytes more (or, negative, fewer) are held of what the peer has sent or not taken. All
  // together are 0 when the connection is over.
  virtual void OnBuffered(const std::shared_ptr<Connection>& connection, int64_t more) = 0;
  // Once, when the connection is over. It is not used again.
  virtual void OnClosed(const std::shared_ptr<Connection>& connection) = 0;
};

// Event loop only. Lives as long as an operation is pending on it or somebody holds it.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Socket = boost::asio::local::stream_protocol::socket;

  struct Limits {
    std::chrono::milliseconds hello = std::chrono::seconds(10);
    // A peer that takes nothing for so long, while there is something to take, is dropped.
    std::chrono::milliseconds stall = std::chrono::seconds(60);
    // No further request is read while so much waits to be taken.
    size_t pending_bytes = size_t{256} << 10;
    // Nor while so many requests, waits aside, are not answered.
    int unanswered = 4;
    int waits = 64;
  };

  // `handler` outlives the connection.
  Connection(Socket socket, Peer peer, ConnectionHandler& handler, const Limits& limits);

  void Start();

  void Send(const Reply& reply);
  // Sends this, reads no more requests, and closes once the peer has taken it.
  void SendLast(const Reply& reply);
  // At once; OnClosed follows.
  void Close();

  // The peer has said hello: no other request comes before.
  void set_greeted();
  bool greeted() const { return greeted_; }
  const Peer& peer() const { return peer_; }

  // Events about these jobs (empty: about all that MarkChanged names) from now on, beginning with
  // one for each of `first`.
  void Subscribe(const std::vector<int64_t>& jobs, const std::vector<int64_t>& first);
  bool subscribed() const { return subscribed_; }
  // The job has changed: an event follows when the peer takes it, one for however many changes.
  void MarkChanged(int64_t job);

  // The request now handled is a wait: its reply may take hours, and others go on meanwhile. False
  // when there are too many of them; it must then be answered at once.
  bool BeginWait();
  void EndWait();  // its reply is about to be sent

 private:
  bool may_handle() const {
    return !closed_ && !last_words_ && unanswered_ < limits_.unanswered &&
           pending_bytes() <= limits_.pending_bytes;
  }
  void Read();
  void OnRead(size_t size);
  void HandleLines();
  void Write();
  void FillWithEvents();
  void Drain();  // reads and forgets, so that the last words are not lost with the connection
  void ArmStallTimer();
  void TellBuffered();
  size_t pending_bytes() const { return outgoing_.size() - sent_ + next_.size(); }

  Socket socket_;
  const Peer peer_;
  ConnectionHandler& handler_;
  const Limits limits_;
  boost::asio::steady_timer hello_timer_;
  boost::asio::steady_timer stall_timer_;
  LineDecoder decoder_;
  std::array<char, 16 << 10> incoming_;
  std::string outgoing_;  // being sent, from sent_ on
  size_t sent_ = 0;
  std::string next_;  // to be sent after it
  bool reading_ = false;
  bool writing_ = false;
  bool greeted_ = false;
  bool last_words_ = false;
  bool closed_ = false;
  bool subscribed_ = false;
  int unanswered_ = 0;
  int waits_ = 0;
  int64_t told_bytes_ = 0;     // of OnBuffered
  std::set<int64_t> wanted_;   // jobs subscribed to; empty: all
  std::set<int64_t> changed_;  // jobs that the peer has not heard about
  int64_t changes_ = 0;        // that concerned the peer, coalesced or not: what numbers its events
};

}  // namespace tiny_knn
