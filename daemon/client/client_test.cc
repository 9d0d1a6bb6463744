#include "daemon/client/client.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <future>
#include <limits>
#include <set>

#include "core/io/unique_fd.h"
#include "core/io/unprivileged_for_test.h"
#include "daemon/client/fake_daemon_for_test.h"
#include "daemon/protocol/line_decoder.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

std::unique_ptr<DaemonClient> MustConnect(const DaemonClient::Options& options) {
  absl::StatusOr<std::unique_ptr<DaemonClient>> client = DaemonClient::Connect(options);
  EXPECT_TRUE(client.ok()) << client.status();
  return client.ok() ? *std::move(client) : nullptr;
}

// ---- Connecting ---------------------------------------------------------------------------------

TEST(DaemonClient, SaysHelloAndKnowsTheDaemon) {
  FakeDaemon daemon([](Peer& peer) {
    const Request request = peer.ReadRequest();
    const auto& hello = std::get<HelloRequest>(request.body);
    EXPECT_EQ(hello.client, "client_test");
    EXPECT_EQ(hello.least_protocol, kLeastProtocol);
    EXPECT_EQ(hello.greatest_protocol, kGreatestProtocol);
    peer.Answer(request.id, HelloReply{.protocol = 1, .features = {"log"}, .build = "b", .uid = 7});
  });
  const auto client = MustConnect(daemon.options());
  ASSERT_NE(client, nullptr);
  EXPECT_EQ(client->daemon().uid, 7);
  EXPECT_EQ(client->daemon().build, "b");
  EXPECT_EQ(client->socket_path(), daemon.path());
}

TEST(DaemonClient, TriesTheNextSocketWhereNobodyListens) {
  Folder folder;
  const std::string stale = folder.File("stale.sock");
  close(Listen(stale));
  FakeDaemon daemon([](Peer& peer) { peer.AnswerHello(); });
  DaemonClient::Options options = daemon.options();
  options.socket_paths = {folder.File("none.sock"), stale, daemon.path()};
  const auto client = MustConnect(options);
  ASSERT_NE(client, nullptr);
  EXPECT_EQ(client->socket_path(), daemon.path());
}

TEST(DaemonClient, SaysHowToStartADaemonWhereNoneListens) {
  Folder folder;
  const std::string stale = folder.File("stale.sock");
  close(Listen(stale));
  DaemonClient::Options options;
  options.socket_paths = {folder.File("none.sock"), stale};
  const absl::Status status = DaemonClient::Connect(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(MessageOf(status),
            fmt::format("no daemon listens at {} or {}; start one with `tiny-knn daemon "
                        "--background`",
                        options.socket_paths[0], options.socket_paths[1]));
}

TEST(DaemonClient, ARegularFileIsNamedAsOne) {
  Folder folder;
  DaemonClient::Options options;
  options.socket_paths = {folder.File("file")};
  std::ofstream(options.socket_paths[0]) << "text";
  const absl::Status status = DaemonClient::Connect(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(MessageOf(status), HasSubstr("is a regular file, not a daemon's socket"));
}

TEST(DaemonClient, ASocketClosedToThisUserIsPermissionDenied) {
  FakeDaemon daemon([](Peer&) {});
  ASSERT_EQ(chmod(daemon.path().c_str(), 0), 0);
  ScopedUnprivileged unprivileged;
  DaemonClient::Options options = daemon.options();
  options.socket_paths.push_back(daemon.path() + ".none");
  const absl::Status status = DaemonClient::Connect(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << status;
  EXPECT_THAT(MessageOf(status), HasSubstr(daemon.path()));
}

TEST(DaemonClient, APathThatNoSocketCanHaveIsInvalid) {
  for (const std::string& path : {std::string("relative.sock"), "/" + std::string(107, 'x')}) {
    DaemonClient::Options options;
    options.socket_paths = {path};
    EXPECT_EQ(DaemonClient::Connect(options).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(DaemonClient, AFullBacklogIsWaitedForUntilTheTimeout) {
  Folder folder;
  DaemonClient::Options options;
  options.socket_paths = {folder.File("daemon.sock")};
  options.reply_timeout = milliseconds(30);
  // Nobody accepts, as when the daemon is stopped. The backlog of 5 takes 6 connections.
  const UniqueFd listener(Listen(options.socket_paths[0]));
  std::vector<UniqueFd> waiting;
  for (int i = 0; i < 6; ++i) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, options.socket_paths[0].c_str());
    waiting.emplace_back(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
    ASSERT_EQ(
        connect(waiting.back().get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
        0);
  }
  const absl::Status status = DaemonClient::Connect(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_THAT(MessageOf(status), HasSubstr("accepts no connection"));
}

TEST(DaemonClient, ADaemonOfAnotherProtocolIsFailedPrecondition) {
  FakeDaemon newer([](Peer& peer) {
    const Request request = peer.ReadRequest();
    peer.Answer(request.id, ErrorReply{.code = ErrorCode::kUnsupportedProtocol, .message = "no"});
  });
  EXPECT_EQ(DaemonClient::Connect(newer.options()).status().code(),
            absl::StatusCode::kFailedPrecondition);
  FakeDaemon careless([](Peer& peer) {
    const Request request = peer.ReadRequest();
    peer.Answer(request.id, HelloReply{.protocol = 99, .features = {}, .build = "b", .uid = 0});
  });
  const absl::Status status = DaemonClient::Connect(careless.options()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(MessageOf(status), HasSubstr("speaks protocol 99"));
}

TEST(DaemonClient, BeginSaysHelloAndGreetHearsTheAnswer) {
  std::promise<void> heard;
  FakeDaemon daemon([&heard](Peer& peer) {
    const Request hello = peer.ReadRequest();
    EXPECT_TRUE(std::holds_alternative<HelloRequest>(hello.body));
    heard.set_value();
    peer.Answer(hello.id, HelloReply{.protocol = 1, .features = {}, .build = "b", .uid = 7});
    const Request drain = peer.ReadRequest();
    EXPECT_TRUE(std::holds_alternative<DrainRequest>(drain.body));
    peer.Answer(drain.id, EmptyReply{});
  });
  const absl::StatusOr<std::unique_ptr<DaemonClient>> client =
      DaemonClient::Begin(daemon.options());
  ASSERT_TRUE(client.ok()) << client.status();
  heard.get_future().wait();  // before Greet
  ASSERT_TRUE((*client)->Greet().ok());
  EXPECT_EQ((*client)->daemon().uid, 7);
  EXPECT_TRUE((*client)->Call<EmptyReply>(DrainRequest{}).ok());

  DaemonClient::Options nowhere = daemon.options();
  nowhere.socket_paths[0] += ".missing";
  EXPECT_EQ(DaemonClient::Begin(nowhere).status().code(), absl::StatusCode::kUnavailable);
  FakeDaemon refuses([](Peer& peer) {
    peer.Answer(0, ErrorReply{.code = ErrorCode::kTooManyConnections, .message = "too many"});
    peer.Close();
  });
  const auto refused = DaemonClient::Begin(refuses.options());
  ASSERT_TRUE(refused.ok()) << refused.status();
  EXPECT_EQ((*refused)->Greet().code(), absl::StatusCode::kResourceExhausted);
}

TEST(DaemonClient, AnErrorBeforeTheRequestIsReadIsHeard) {
  FakeDaemon daemon([](Peer& peer) {
    peer.Answer(0, ErrorReply{.code = ErrorCode::kTooManyConnections, .message = "too many"});
    peer.Close();
  });
  const absl::Status status = DaemonClient::Connect(daemon.options()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(MessageOf(status), "too many");
}

TEST(DaemonClient, ADaemonThatDoesNotAnswerIsLeftAfterTheTimeout) {
  FakeDaemon daemon([](Peer& peer) {
    peer.ReadLine();
    EXPECT_EQ(peer.ReadLine(), "");  // until the client is gone
  });
  DaemonClient::Options options = daemon.options();
  options.reply_timeout = milliseconds(20);
  const absl::Status status = DaemonClient::Connect(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(MessageOf(status), HasSubstr("did not answer hello within 0.02 s"));
}

// ---- Calls --------------------------------------------------------------------------------------

TEST(DaemonClient, ErrorRepliesBecomeTheirStatus) {
  FakeDaemon daemon([](Peer& peer) {
    peer.AnswerHello();
    peer.Answer(peer.ReadRequest().id,
                ErrorReply{.code = ErrorCode::kUnknownJob, .message = "no job 5; see status"});
    peer.Answer(peer.ReadRequest().id, CleanReply{.removed = 3});
  });
  const auto client = MustConnect(daemon.options());
  const absl::Status status = client->Call<JobsReply>(StatusRequest{.jobs = {5}}).status();
  EXPECT_EQ(status, absl::NotFoundError("no job 5; see status"));
  const auto clean = client->Call<CleanReply>(CleanRequest{});
  ASSERT_TRUE(clean.ok()) << clean.status();
  EXPECT_EQ(clean->removed, 3);
}

TEST(DaemonClient, AnotherKindOfReplyIsAnError) {
  FakeDaemon daemon([](Peer& peer) {
    peer.AnswerHello();
    peer.Answer(peer.ReadRequest().id, EmptyReply{});
  });
  const auto client = MustConnect(daemon.options());
  EXPECT_EQ(client->Call<StatsReply>(StatsRequest{}).status().code(), absl::StatusCode::kInternal);
}

TEST(DaemonClient, EventsBetweenRepliesAreKeptInTheirOrder) {
  FakeDaemon daemon([](Peer& peer) {
    peer.AnswerHello();
    peer.Answer(peer.ReadRequest().id, SubscribeReply{.sequence = 10});
    const Request request = peer.ReadRequest();
    peer.SendEvent(11, 1, JobState::kQueued);
    peer.SendEvent(12, 1, JobState::kRunning);
    peer.Answer(request.id, CleanReply{.removed = 1});
    peer.SendEvent(13, 1, JobState::kDone);
    EXPECT_EQ(peer.ReadLine(), "");
  });
  const auto client = MustConnect(daemon.options());
  ASSERT_TRUE(client->Call<SubscribeReply>(SubscribeRequest{}).ok());
  ASSERT_TRUE(client->Call<CleanReply>(CleanRequest{}).ok());
  for (const int64_t sequence : {11, 12, 13}) {
    const auto event = client->NextEvent(seconds(10));
    ASSERT_TRUE(event.ok()) << event.status();
    ASSERT_TRUE(event->has_value());
    EXPECT_EQ((**event).sequence, sequence);
  }
  const auto none = client->NextEvent(milliseconds(0));
  ASSERT_TRUE(none.ok());
  EXPECT_FALSE(none->has_value());
}

TEST(DaemonClient, EventsThatNobodyTakesAreCoalescedByJob) {
  constexpr int kEvents = 20000;
  FakeDaemon daemon([](Peer& peer) {
    peer.AnswerHello();
    const Request request = peer.ReadRequest();
    for (int i = 1; i <= kEvents; ++i) {
      peer.SendEvent(i, 1 + i % 3, i + 3 > kEvents ? JobState::kDone : JobState::kRunning);
    }
    peer.Answer(request.id, CleanReply{});
  });
  const auto client = MustConnect(daemon.options());
  ASSERT_TRUE(client->Call<CleanReply>(CleanRequest{}).ok());
  int taken = 0;
  int64_t last = 0;
  std::set<int64_t> done;
  for (; last < kEvents; ++taken) {
    const auto event = client->NextEvent(milliseconds(0));
    ASSERT_TRUE(event.ok()) << event.status();
    ASSERT_TRUE(event->has_value());
    EXPECT_GT((**event).sequence, last);
    last = (**event).sequence;
    if ((**event).job.state == JobState::kDone) done.insert((**event).job.id);
  }
  EXPECT_LT(taken, 5000);
  EXPECT_EQ(done.size(), 3U);  // the last state of each job is there
}

TEST(DaemonClient, ARequestGreaterThanTheSocketsBufferIsSentWhole) {
  // More ids than a daemon answers, so that the line has some 800 kB.
  const std::vector<int64_t> jobs(40000, std::numeric_limits<int64_t>::max());
  const absl::StatusOr<std::string> expected =
      EncodeRequest({.id = 2, .body = StatusRequest{.jobs = jobs}});
  ASSERT_TRUE(expected.ok()) << expected.status();
  FakeDaemon daemon([&expected](Peer& peer) {
    peer.AnswerHello();
    EXPECT_EQ(peer.ReadLine(), *expected);
    peer.Answer(2, JobsReply{});
  });
  const auto client = MustConnect(daemon.options());
  const absl::Status status = client->Call<JobsReply>(StatusRequest{.jobs = jobs}).status();
  EXPECT_TRUE(status.ok()) << status;
}

// ---- What goes wrong ----------------------------------------------------------------------------

TEST(DaemonClient, AConnectionBrokenMidLineIsUnavailable) {
  FakeDaemon daemon([](Peer& peer) {
    peer.AnswerHello();
    peer.ReadRequest();
    peer.Send(R"({"id":2,"ok":true,"ty)");
    peer.Close();
  });
  const auto client = MustConnect(daemon.options());
  for (int i = 0; i < 2; ++i) {  // and stays so
    const absl::Status status = client->Call<EmptyReply>(DrainRequest{}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(MessageOf(status), HasSubstr("closed the connection"));
  }
  EXPECT_EQ(client->NextEvent(seconds(10)).status().code(), absl::StatusCode::kUnavailable);
}

TEST(DaemonClient, ALineTooLongEndsTheConnection) {
  FakeDaemon daemon([](Peer& peer) {
    peer.AnswerHello();
    peer.ReadRequest();
    peer.Send(std::string(kMostLineBytes + 1, 'x'));
    EXPECT_EQ(peer.ReadLine(), "");
  });
  const auto client = MustConnect(daemon.options());
  const absl::Status status = client->Call<EmptyReply>(DrainRequest{}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(MessageOf(status), HasSubstr("a line is longer than the 1048576 bytes"));
}

TEST(DaemonClient, ALineThatIsNoMessageEndsTheConnection) {
  FakeDaemon daemon([](Peer& peer) {
    peer.ReadRequest();
    peer.Send("220 mail.example.org ESMTP\r\n");
    EXPECT_EQ(peer.ReadLine(), "");
  });
  const absl::Status status = DaemonClient::Connect(daemon.options()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(MessageOf(status), HasSubstr("does not speak as a daemon of this version"));
}

TEST(DaemonClient, AReplyAfterItsTimeoutIsDropped) {
  std::atomic<bool> timed_out = false;
  FakeDaemon daemon([&timed_out](Peer& peer) {
    peer.AnswerHello();
    const Request late = peer.ReadRequest();
    const Request next = peer.ReadRequest();  // sent once the first has timed out
    EXPECT_TRUE(timed_out);
    peer.Answer(late.id, CleanReply{.removed = 1});
    peer.Answer(next.id, CleanReply{.removed = 2});
  });
  DaemonClient::Options options = daemon.options();
  // Only what waits for `late` may time out, so the call of `next` is of a kind without timeout.
  options.reply_timeout = milliseconds(500);
  const auto client = MustConnect(options);
  ASSERT_NE(client, nullptr);
  EXPECT_EQ(client->Call<CleanReply>(CleanRequest{}).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  timed_out = true;
  const auto next = client->Call<CleanReply>(WaitRequest{.jobs = {1}});
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(next->removed, 2);
}

TEST(DaemonClient, AnInterruptedWaitCanStillBeCancelledOnTheConnection) {
  std::atomic<bool> interrupted = false;
  FakeDaemon daemon([&interrupted](Peer& peer) {
    peer.AnswerHello();
    const Request wait = peer.ReadRequest();
    interrupted = true;
    const Request cancel = peer.ReadRequest();
    EXPECT_TRUE(std::holds_alternative<CancelRequest>(cancel.body));
    JobsReply reply;
    reply.jobs.emplace_back().id = 5;
    peer.Answer(wait.id, JobsReply{});  // too late
    peer.Answer(cancel.id, reply);
  });
  DaemonClient::Options options = daemon.options();
  options.interrupted = [&interrupted] { return interrupted.exchange(false); };
  const auto client = MustConnect(options);
  EXPECT_EQ(client->Call<JobsReply>(WaitRequest{.jobs = {5}}).status().code(),
            absl::StatusCode::kCancelled);
  const auto cancelled = client->Call<JobsReply>(CancelRequest{.jobs = {5}});
  ASSERT_TRUE(cancelled.ok()) << cancelled.status();
  ASSERT_EQ(cancelled->jobs.size(), 1U);
  EXPECT_EQ(cancelled->jobs[0].id, 5);
}

TEST(DaemonClient, AWaitForEventsEndsWithTheTimeout) {
  FakeDaemon daemon([](Peer& peer) {
    peer.AnswerHello();
    EXPECT_EQ(peer.ReadLine(), "");
  });
  const auto client = MustConnect(daemon.options());
  const auto start = std::chrono::steady_clock::now();
  const auto event = client->NextEvent(milliseconds(150));
  ASSERT_TRUE(event.ok()) << event.status();
  EXPECT_FALSE(event->has_value());
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(150));
}

TEST(NewSubmitKey, IsThirtyTwoHexadecimalDigitsAndNeverTheSame) {
  std::set<std::string> keys;
  for (int i = 0; i < 1000; ++i) {
    const std::string key = NewSubmitKey();
    EXPECT_EQ(key.size(), 32U);
    EXPECT_EQ(key.find_first_not_of("0123456789abcdef"), std::string::npos);
    EXPECT_TRUE(keys.insert(key).second);
  }
}

}  // namespace
}  // namespace tiny_knn
