#include "daemon/supervisor/connection.h"

#include <utility>
#include <variant>

#include "boost/asio/buffer.hpp"
#include "boost/system/error_code.hpp"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

using boost::system::error_code;

// Events are encoded when there is room for them, so many bytes at a time.
constexpr size_t kEventBatchBytes = size_t{64} << 10;
// That an entry of a set takes.
constexpr size_t kEntryBytes = 48;
// For the peer to take the last words.
constexpr std::chrono::seconds kLinger(1);

}  // namespace

Connection::Connection(Socket socket, Peer peer, ConnectionHandler& handler, const Limits& limits)
    : socket_(std::move(socket)),
      peer_(std::move(peer)),
      handler_(handler),
      limits_(limits),
      hello_timer_(socket_.get_executor()),
      stall_timer_(socket_.get_executor()) {}

void Connection::Start() {
  hello_timer_.expires_after(limits_.hello);
  hello_timer_.async_wait([self = shared_from_this()](const error_code& error) {
    if (error || self->greeted_ || self->closed_ || self->last_words_) return;
    self->SendLast({0, ErrorReply{ErrorCode::kBadRequest,
                                  "no hello came in time; the first request on a connection is "
                                  "hello"}});
  });
  Read();
}

void Connection::set_greeted() {
  greeted_ = true;
  hello_timer_.cancel();
}

void Connection::Read() {
  if (reading_ || !may_handle()) return;
  reading_ = true;
  socket_.async_read_some(boost::asio::buffer(incoming_),
                          [self = shared_from_this()](const error_code& error, size_t size) {
                            self->reading_ = false;
                            if (self->closed_) return;
                            if (error) return self->Close();
                            self->OnRead(size);
                          });
}

void Connection::OnRead(size_t size) {
  if (last_words_) return Drain();
  const absl::Status fed = decoder_.Feed({incoming_.data(), size});
  if (!fed.ok()) {
    return SendLast({0, ErrorReply{ErrorCode::kBadRequest, std::string(fed.message())}});
  }
  HandleLines();
  TellBuffered();
  Read();
}

void Connection::TellBuffered() {
  const size_t held = closed_ ? 0
                              : decoder_.pending_bytes() + outgoing_.size() + next_.size() +
                                    (wanted_.size() + changed_.size()) * kEntryBytes;
  const int64_t more = static_cast<int64_t>(held) - told_bytes_;
  if (more == 0) return;
  told_bytes_ += more;
  handler_.OnBuffered(shared_from_this(), more);
}

void Connection::HandleLines() {
  while (may_handle()) {
    std::optional<std::string> line = decoder_.Next();
    if (!line) return;
    std::variant<Request, RequestError> decoded = DecodeRequest(*line);
    if (RequestError* wrong = std::get_if<RequestError>(&decoded)) {
      const Reply reply{wrong->id, std::move(wrong->error)};
      ++unanswered_;
      // Before its hello a peer is not known to speak this protocol at all.
      greeted_ ? Send(reply) : SendLast(reply);
      continue;
    }
    ++unanswered_;
    handler_.OnRequest(shared_from_this(), std::move(std::get<Request>(decoded)));
  }
}

void Connection::Send(const Reply& reply) {
  if (closed_ || last_words_) return;
  --unanswered_;
  next_ += EncodeReply(reply);
  next_ += '\n';
  Write();
  TellBuffered();
}

void Connection::SendLast(const Reply& reply) {
  if (closed_ || last_words_) return;
  Send(reply);
  last_words_ = true;
  changed_.clear();
  hello_timer_.expires_after(kLinger);
  hello_timer_.async_wait([self = shared_from_this()](const error_code& error) {
    if (!error) self->Close();
  });
  Drain();
}

bool Connection::BeginWait() {
  if (waits_ >= limits_.waits) return false;
  ++waits_;
  --unanswered_;
  return true;
}

void Connection::EndWait() {
  --waits_;
  ++unanswered_;
}

void Connection::Drain() {
  if (reading_ || closed_) return;
  reading_ = true;
  socket_.async_read_some(boost::asio::buffer(incoming_),
                          [self = shared_from_this()](const error_code& error, size_t) {
                            self->reading_ = false;
                            if (self->closed_) return;
                            if (error) return self->Close();
                            self->Drain();
                          });
}

void Connection::Subscribe(const std::vector<int64_t>& jobs, const std::vector<int64_t>& first) {
  if (closed_ || last_words_) return;
  subscribed_ = true;
  wanted_ = {jobs.begin(), jobs.end()};
  changed_ = {first.begin(), first.end()};
  changes_ += static_cast<int64_t>(changed_.size());
  Write();
  TellBuffered();
}

void Connection::MarkChanged(int64_t job) {
  if (!subscribed_ || closed_ || last_words_) return;
  if (!wanted_.empty() && wanted_.count(job) == 0) return;
  changed_.insert(job);
  ++changes_;
  Write();
  TellBuffered();
}

void Connection::FillWithEvents() {
  while (!changed_.empty() && next_.size() < kEventBatchBytes) {
    const int64_t job = *changed_.begin();
    changed_.erase(changed_.begin());
    // Greater with every event, and the last change's own once all are told.
    const int64_t sequence = changes_ - static_cast<int64_t>(changed_.size());
    if (std::optional<std::string> event = handler_.EventFor(job, sequence)) {
      next_ += *event;
      next_ += '\n';
    }
  }
}

void Connection::ArmStallTimer() {
  stall_timer_.expires_after(limits_.stall);
  stall_timer_.async_wait([self = shared_from_this()](const error_code& error) {
    if (!error && self->writing_) self->Close();
  });
}

void Connection::Write() {
  if (writing_ || closed_) return;
  if (sent_ == outgoing_.size()) {
    if (next_.empty()) FillWithEvents();
    if (next_.empty()) return;
    // A fresh buffer when the old one has grown: what was large once must not stay so.
    outgoing_.clear();
    if (outgoing_.capacity() > kEventBatchBytes) outgoing_.shrink_to_fit();
    outgoing_.swap(next_);
    sent_ = 0;
  }
  writing_ = true;
  ArmStallTimer();
  socket_.async_write_some(boost::asio::buffer(outgoing_.data() + sent_, outgoing_.size() - sent_),
                           [self = shared_from_this()](const error_code& error, size_t size) {
                             self->writing_ = false;
                             if (self->closed_) return;
                             if (error) return self->Close();
                             self->sent_ += size;
                             self->stall_timer_.cancel();
                             self->Write();
                             self->TellBuffered();
                             if (self->last_words_) {
                               if (!self->writing_) {
                                 error_code ignored;
                                 self->socket_.shutdown(Socket::shutdown_send, ignored);
                               }
                               return;
                             }
                             self->HandleLines();
                             self->Read();
                           });
}

void Connection::Close() {
  if (closed_) return;
  closed_ = true;
  error_code ignored;
  socket_.close(ignored);
  hello_timer_.cancel();
  stall_timer_.cancel();
  changed_.clear();
  TellBuffered();
  handler_.OnClosed(shared_from_this());
}

}  // namespace tiny_knn
