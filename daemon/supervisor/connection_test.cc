#include "daemon/supervisor/connection.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/io/unique_fd.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

// Answers every request with an empty reply, unless told to hold it back.
class Handler : public ConnectionHandler {
 public:
  void OnRequest(const std::shared_ptr<Connection>& connection, Request request) override {
    ++requests;
    if (std::holds_alternative<HelloRequest>(request.body)) connection->set_greeted();
    if (std::holds_alternative<WaitRequest>(request.body) && connection->BeginWait()) return;
    if (!hold_back) connection->Send({request.id, EmptyReply{}});
  }
  std::optional<std::string> EventFor(int64_t job, int64_t sequence) override {
    ++events[job];
    if (job == gone) return std::nullopt;
    JobView view;
    view.id = job;
    view.reason = std::string(event_bytes, 'x');
    return EncodeEvent({sequence, view});
  }
  void OnBuffered(const std::shared_ptr<Connection>&, int64_t more) override {
    buffered += more;
    most_buffered = std::max(most_buffered, buffered);
  }
  void OnClosed(const std::shared_ptr<Connection>&) override { ++closed; }

  int requests = 0;
  int closed = 0;
  bool hold_back = false;
  int64_t gone = 0;
  int64_t buffered = 0;
  int64_t most_buffered = 0;
  size_t event_bytes = 1;
  std::map<int64_t, int> events;
};

class ConnectionTest : public testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    peer_ = UniqueFd(ends[1]);
    Connection::Socket socket(loop_);
    socket.assign(boost::asio::local::stream_protocol(), ends[0]);
    limits_.hello = milliseconds(200);
    limits_.stall = milliseconds(200);
    connection_ = std::make_shared<Connection>(std::move(socket), Peer{}, handler_, limits_);
  }

  void Say(const std::string& text) {
    ASSERT_EQ(send(peer_.get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  void Hello() { Say(*EncodeRequest({1, HelloRequest{}}) + "\n"); }

  // What has arrived by now; nothing more is read from the socket than there is.
  std::string Hear() {
    char buffer[1 << 16];
    ssize_t size;
    while ((size = recv(peer_.get(), buffer, sizeof(buffer), 0)) > 0) {
      heard_.append(buffer, static_cast<size_t>(size));
    }
    return heard_;
  }
  bool Hung() {
    char byte;
    return recv(peer_.get(), &byte, 1, MSG_PEEK) == 0;
  }

  template <typename Done>
  void Until(const Done& done) {
    while (!done()) {
      loop_.run_one_for(milliseconds(20));
      loop_.restart();
    }
  }
  void Settle() {  // all that is ready
    while (loop_.poll() > 0) loop_.restart();
    loop_.restart();
  }

  boost::asio::io_context loop_;
  Handler handler_;
  Connection::Limits limits_;
  std::shared_ptr<Connection> connection_;
  UniqueFd peer_;
  std::string heard_;
};

TEST_F(ConnectionTest, APeerThatNeverSaysHelloIsToldSoAndDropped) {
  connection_->Start();
  Say("{\"id\":1,\"type\"");  // half a line, then silence
  Until([&] { return handler_.closed == 1; });
  EXPECT_THAT(Hear(), HasSubstr("bad_request"));
  EXPECT_EQ(handler_.requests, 0);
}

TEST_F(ConnectionTest, APeerThatHasSaidHelloMayBeSilentForAnyTime) {
  connection_->Start();
  Hello();
  Until([&] { return handler_.requests == 1; });
  const auto end = std::chrono::steady_clock::now() + milliseconds(500);
  Until([&] { return std::chrono::steady_clock::now() > end; });
  EXPECT_EQ(handler_.closed, 0);
}

TEST_F(ConnectionTest, NoEventFollowsTheLastWords) {
  connection_->Start();
  Hello();
  Until([&] { return handler_.requests == 1; });
  connection_->SendLast({0, ErrorReply{ErrorCode::kStopping, "the daemon has ended"}});
  connection_->Subscribe({}, {1, 2});  // by a request that was still being written down
  connection_->MarkChanged(1);
  Settle();
  EXPECT_THAT(Hear(), HasSubstr("the daemon has ended"));
  EXPECT_TRUE(handler_.events.empty());
}

TEST_F(ConnectionTest, GarbageBeforeTheHelloEndsTheConnectionWithAReason) {
  connection_->Start();
  Say("GET / HTTP/1.1\n");
  Until([&] { return Hear().find('\n') != std::string::npos; });
  EXPECT_THAT(heard_, HasSubstr("\"code\":\"bad_request\""));
  peer_.Reset();
  Until([&] { return handler_.closed == 1; });
}

TEST_F(ConnectionTest, GarbageAfterTheHelloIsAnsweredAndForgiven) {
  connection_->Start();
  Hello();
  Say("nonsense\n{\"id\":2,\"type\":\"stats\"}\n");
  Until([&] { return Hear().find("\"id\":2") != std::string::npos; });
  EXPECT_EQ(handler_.requests, 2);
  EXPECT_THAT(heard_, HasSubstr("bad_request"));
}

TEST_F(ConnectionTest, AnOversizedLineEndsTheConnectionWithAReason) {
  connection_->Start();
  Hello();
  const std::string part(64 << 10, 'x');
  size_t sent = 0;
  Until([&] {
    const ssize_t size = send(peer_.get(), part.data(), part.size(), MSG_NOSIGNAL);
    if (size > 0) sent += static_cast<size_t>(size);
    Hear();
    return handler_.closed == 1 || heard_.find("bad_request") != std::string::npos;
  });
  EXPECT_THAT(heard_, HasSubstr("bad_request"));
  EXPECT_GT(sent, kMostLineBytes);
  EXPECT_LT(sent, 2 * kMostLineBytes);
}

TEST_F(ConnectionTest, RequestsWaitWhileTooManyAreUnanswered) {
  handler_.hold_back = true;
  connection_->Start();
  for (int i = 0; i < 100; ++i) Hello();
  Until([&] { return handler_.requests >= limits_.unanswered; });
  Settle();
  EXPECT_EQ(handler_.requests, limits_.unanswered);
  // Each answer lets one more in.
  connection_->Send({1, EmptyReply{}});
  Until([&] { return handler_.requests > limits_.unanswered; });
  Settle();
  EXPECT_EQ(handler_.requests, limits_.unanswered + 1);
}

TEST_F(ConnectionTest, WaitsDoNotKeepOtherRequestsBackButAreLimited) {
  connection_->Start();
  Hello();
  for (int i = 0; i < limits_.waits + 1; ++i) Say("{\"id\":9,\"type\":\"wait\",\"jobs\":[1]}\n");
  Say("{\"id\":77,\"type\":\"stats\"}\n");
  Until([&] { return Hear().find("\"id\":77") != std::string::npos; });
  EXPECT_EQ(handler_.requests, limits_.waits + 3);
  EXPECT_THAT(heard_, HasSubstr("\"id\":9"));  // the one too many was answered at once
}

TEST_F(ConnectionTest, APeerThatAsksButDoesNotReadCostsBoundedMemoryAndIsDropped) {
  connection_->Start();
  Hello();
  int asked = 0;
  Until([&] {
    const std::string request = "{\"id\":2,\"type\":\"stats\"}\n";
    if (send(peer_.get(), request.data(), request.size(), MSG_NOSIGNAL) > 0) ++asked;
    return handler_.closed == 1;
  });
  // What the two sockets hold, and the limit of what waits.
  EXPECT_LT(handler_.requests, 40000);
  EXPECT_GT(handler_.requests, 100);
}

TEST_F(ConnectionTest, EventsAboutOneJobAreCoalescedWhileThePeerDoesNotRead) {
  handler_.event_bytes = 1000;
  connection_->Start();
  Hello();
  Settle();
  connection_->Subscribe({}, {1, 2});
  for (int i = 0; i < 100000; ++i) connection_->MarkChanged(1 + i % 300);
  Settle();
  // Far fewer than the changes: what fits into the sockets.
  int encoded = 0;
  for (const auto& [job, count] : handler_.events) encoded += count;
  EXPECT_LT(encoded, 2000);
  // Once it reads, it hears of the last state of all of them, numbered upwards to the last change.
  Until([&] {
    Settle();
    return Hear().find("\"sequence\":100002") != std::string::npos;
  });
  int64_t last = 0;
  std::map<int64_t, bool> seen;
  size_t at = 0;
  while ((at = heard_.find("\"sequence\":", at)) != std::string::npos) {
    const int64_t sequence = std::stoll(heard_.substr(at + 11));
    EXPECT_GT(sequence, last);
    last = sequence;
    ++at;
  }
  for (at = 0; (at = heard_.find("\"job\":{", at)) != std::string::npos; ++at) {
    const size_t id = heard_.find("\"id\":", at);
    seen[std::stoll(heard_.substr(id + 5))] = true;
  }
  EXPECT_EQ(seen.size(), 300u);
  EXPECT_EQ(handler_.closed, 0);
}

TEST_F(ConnectionTest, ASubscriberThatNeverReadsIsDropped) {
  handler_.event_bytes = 10000;
  connection_->Start();
  Hello();
  Settle();
  connection_->Subscribe({}, {});
  int64_t job = 0;
  Until([&] {
    connection_->MarkChanged(++job % 1000);
    return handler_.closed == 1;
  });
}

TEST_F(ConnectionTest, WhatIsHeldForAPeerIsToldAndForgottenWithIt) {
  connection_->Start();
  Hello();
  Until([&] { return Hear().find('\n') != std::string::npos; });
  Settle();
  const int64_t greeted = handler_.buffered;  // the last reply's buffer
  EXPECT_LT(greeted, 1000);
  Say(std::string(10000, 'x'));  // half a line
  Until([&] { return handler_.buffered == greeted + 10000; });
  connection_->Subscribe({1, 2, 3}, {});
  EXPECT_GT(handler_.buffered, greeted + 10000);
  EXPECT_LT(handler_.buffered, greeted + 11000);
  for (int64_t id = 1; id <= 4; ++id)
    connection_->Send({id, LogReply{std::string(256 << 10, 'x')}});
  Settle();
  EXPECT_GT(handler_.buffered, 1 << 19);  // more than the socket takes
  EXPECT_EQ(handler_.closed, 0);
  connection_->Close();
  Settle();
  EXPECT_EQ(handler_.buffered, 0);
  EXPECT_EQ(handler_.closed, 1);
}

TEST_F(ConnectionTest, WhatThePeerHasTakenIsHeldNoMore) {
  connection_->Start();
  Hello();
  Settle();
  for (int64_t id = 1; id <= 4; ++id)
    connection_->Send({id, LogReply{std::string(256 << 10, 'x')}});
  Until([&] {
    Settle();
    const std::string heard = Hear();
    return std::count(heard.begin(), heard.end(), '\n') == 5;
  });
  Settle();
  EXPECT_LT(handler_.buffered, handler_.most_buffered - (256 << 10));
  EXPECT_GE(handler_.buffered, 0);
  EXPECT_GT(handler_.most_buffered, 1 << 19);
}

TEST_F(ConnectionTest, OnlyTheJobsSubscribedToAreTold) {
  handler_.gone = 3;
  connection_->Start();
  Hello();
  Settle();
  connection_->Subscribe({2, 3}, {2});
  for (int64_t job : {1, 2, 3, 4}) connection_->MarkChanged(job);
  Settle();
  EXPECT_EQ(handler_.events.count(1), 0u);
  EXPECT_EQ(handler_.events.count(4), 0u);
  EXPECT_GE(handler_.events[2], 1);
  EXPECT_EQ(handler_.events[3], 1);
  EXPECT_EQ(Hear().find("\"id\":3,"), std::string::npos);
}

TEST_F(ConnectionTest, LastWordsReachAPeerThatIsStillTalking) {
  connection_->Start();
  Hello();
  Until([&] { return handler_.requests == 1; });
  Say(std::string(100 << 10, '\n'));  // not read when the connection ends
  connection_->SendLast({0, ErrorReply{ErrorCode::kStopping, "the daemon has ended"}});
  Until([&] { return Hear().find("has ended") != std::string::npos; });
  Until([&] { return Hung(); });
}

TEST_F(ConnectionTest, APeerThatHangsUpIsForgottenOnce) {
  connection_->Start();
  Hello();
  peer_.Reset();
  Until([&] { return handler_.closed == 1; });
  connection_->Send({1, EmptyReply{}});
  connection_->MarkChanged(1);
  connection_->Close();
  Settle();
  EXPECT_EQ(handler_.closed, 1);
}

}  // namespace
}  // namespace tiny_knn
