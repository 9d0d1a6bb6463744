#include "daemon/supervisor/server.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <filesystem>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "core/io/unique_fd.h"
#include "daemon/queue/journal.h"
#include "daemon/supervisor/listen_socket.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tiny_knn {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

constexpr char kWorker[] = "daemon/supervisor/scripted_worker_for_test";

// A daemon's server and queue with workers that never finish a job; clients are sockets.
class ServerTest : public testing::Test, public DispatcherListener {
 protected:
  void SetUp() override {
    const std::string folder =
        testing::TempDir() + testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder);
    ASSERT_EQ(mkdir(folder.c_str(), 0700), 0);
    absl::StatusOr<std::unique_ptr<Journal>> journal = Journal::Open(folder);
    ASSERT_TRUE(journal.ok()) << journal.status();
    absl::StatusOr<std::unique_ptr<JobQueue>> queue =
        JobQueue::Open(*std::move(journal), QueueLimits{}, [] { return 1.75e9; });
    ASSERT_TRUE(queue.ok()) << queue.status();
    absl::StatusOr<JobLogs> logs = JobLogs::Open(folder + "/logs");
    ASSERT_TRUE(logs.ok()) << logs.status();
    absl::StatusOr<WorkerBinary> binary = OpenWorkerBinary(kWorker);
    ASSERT_TRUE(binary.ok()) << binary.status();
    // Not in the folder: its name may be longer than a socket's may be.
    ASSERT_NE(mkdtemp(socket_folder_), nullptr);
    absl::StatusOr<std::unique_ptr<ListenSocket>> socket = ListenSocket::Open(SocketPath());
    ASSERT_TRUE(socket.ok()) << socket.status();
    socket_ = *std::move(socket);
    options_.device = "waits";
    options_.max_memory_bytes = 1 << 20;
    dispatcher_ = std::make_unique<Dispatcher>(loop_, options_, *std::move(binary),
                                               std::vector<std::string>{}, *std::move(queue),
                                               *std::move(logs), *this);
    server_ = std::make_unique<Server>(loop_, socket_->ReleaseDescriptor(), options_, *dispatcher_,
                                       limits_, identity_);
    server_->Start();
    dispatcher_->Start();
  }
  void TearDown() override { std::filesystem::remove_all(socket_folder_); }

  void OnJobChanged(int64_t job) override { server_->OnJobChanged(job); }
  void OnStopped() override {}

  std::string SocketPath() const { return std::string(socket_folder_) + "/s"; }
  UniqueFd Connect() {
    UniqueFd client(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, SocketPath().c_str(), sizeof(address.sun_path) - 1);
    EXPECT_EQ(connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    return client;
  }
  static void Say(const UniqueFd& client, const RequestBody& body, int64_t id) {
    const std::string line = *EncodeRequest({id, body}) + "\n";
    ASSERT_EQ(send(client.get(), line.data(), line.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(line.size()));
  }
  // Everything that `client` is told until the daemon has had `rest` with nothing to do for it.
  std::string Hear(const UniqueFd& client, milliseconds rest = milliseconds(300)) {
    std::string heard;
    char buffer[1 << 16];
    const auto end = std::chrono::steady_clock::now() + rest;
    while (std::chrono::steady_clock::now() < end) {
      loop_.run_one_for(milliseconds(20));
      loop_.restart();
      const ssize_t size = recv(client.get(), buffer, sizeof(buffer), 0);
      if (size > 0) heard.append(buffer, static_cast<size_t>(size));
    }
    return heard;
  }
  static size_t Count(const std::string& text, const std::string& part) {
    size_t count = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
      ++count;
    }
    return count;
  }

  static SubmitRequest SomeJob(const std::string& key) {
    SubmitRequest submit;
    submit.key = key;
    submit.spec.queries_path = "/secret/q.npy";
    submit.spec.docs_path = "/secret/d.npy";
    submit.spec.output_path = "/secret/out.pkl";
    return submit;
  }

  SupervisorOptions options_;
  Server::Limits limits_ = {.connections_per_uid = 4};
  Server::Identity identity_;
  boost::asio::io_context loop_;
  char socket_folder_[32] = "/tmp/tiny_knn_XXXXXX";
  std::unique_ptr<ListenSocket> socket_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::unique_ptr<Server> server_;
};

TEST_F(ServerTest, AWaitThatNamesAJobTwiceIsAnsweredOnce) {
  const UniqueFd client = Connect();
  Say(client, HelloRequest{}, 1);
  Say(client, SomeJob("key"), 2);
  Say(client, WaitRequest{{1, 1}}, 3);
  Say(client, CancelRequest{{1}}, 4);
  const std::string heard = Hear(client, std::chrono::seconds(1));
  EXPECT_EQ(Count(heard, "\"id\":3,\"ok\":true"), 1u) << heard;
}

TEST_F(ServerTest, ConnectionsBeyondTheLimitAreToldSoOrClosedButNeverHoldManyDescriptors) {
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 100; ++i) clients.push_back(Connect());
  const std::string heard = Hear(clients[4]);
  EXPECT_THAT(heard, HasSubstr("too_many_connections"));
  // One end here, the other in the server; the rest is the test's own.
  const auto descriptors = std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                                         std::filesystem::directory_iterator());
  EXPECT_LT(descriptors, 100 + 4 + 16 + 30);
}

// ---- Several users ------------------------------------------------------------------------------

constexpr gid_t kGroup = 100;
constexpr gid_t kAdmins = 50;
const Peer kAna = {1000, 60, {kGroup}};
const Peer kBea = {1001, 60, {kGroup}};
const Peer kAdmin = {1002, 60, {kAdmins}};
const Peer kRoot = {0, 0, {}};
const Peer kStranger = {1003, 60, {7}};

// A daemon that takes itself for one of root, and its peers for whom the test says.
class ServerOfManyTest : public ServerTest {
 protected:
  ServerOfManyTest() {
    options_.group = kGroup;
    options_.admin_group = kAdmins;
    identity_.daemon = 0;
    identity_.peer_of = [this](int) -> absl::StatusOr<Peer> {
      if (peers_.empty()) return absl::InternalError("nobody");
      const Peer peer = peers_.front();
      peers_.pop_front();
      return peer;
    };
  }
  UniqueFd ConnectAs(const Peer& peer) {
    peers_.push_back(peer);
    return Connect();
  }
  UniqueFd GreetAs(const Peer& peer) {
    UniqueFd client = ConnectAs(peer);
    Say(client, HelloRequest{}, 1);
    return client;
  }
  nlohmann::json Ask(const UniqueFd& client, const RequestBody& body, int64_t id = 2) {
    Say(client, body, id);
    std::string heard;
    for (int i = 0; i < 1000; ++i) {
      heard += Hear(client, milliseconds(1));
      std::istringstream lines(heard.substr(0, heard.rfind('\n') + 1));
      for (std::string line; std::getline(lines, line);) {
        nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
        if (json.value("id", int64_t{0}) == id && !json.contains("event")) return json;
      }
    }
    ADD_FAILURE() << "no reply in: " << heard;
    return {};
  }
  static std::string CodeOf(const nlohmann::json& reply) {
    return reply.value("ok", false) ? "ok" : reply["error"].value("code", "");
  }
  // A job of the test's own user runs and does not end, so that all others wait.
  void HoldDevice() {
    holder_ = GreetAs({geteuid(), 60, {kGroup}});
    EXPECT_EQ(CodeOf(Ask(holder_, SomeJob("holds"))), "ok");
    while (!dispatcher_->runner().running_job()) Hear(holder_, milliseconds(20));
  }
  int64_t Submit(const UniqueFd& client, const std::string& key) {
    return Ask(client, SomeJob(key))["job"].value("id", int64_t{0});
  }

  std::deque<Peer> peers_;  // in the order in which they connect
  UniqueFd holder_;
};

TEST_F(ServerOfManyTest, AStrangerIsToldWhatToDoAndHeardNoMore) {
  const UniqueFd client = ConnectAs(kStranger);
  Say(client, HelloRequest{}, 1);
  Say(client, SomeJob("key"), 2);
  const std::string heard = Hear(client);
  EXPECT_THAT(heard, HasSubstr("not_allowed"));
  EXPECT_THAT(heard, HasSubstr("group 100"));
  EXPECT_EQ(Count(heard, "\n"), 1u);
  EXPECT_TRUE(dispatcher_->queue().jobs().empty());
}

TEST_F(ServerOfManyTest, WhoseProcessCannotBeToldIsRefused) {
  const UniqueFd client = Connect();
  EXPECT_EQ(Hear(client), "");
  char byte;
  EXPECT_EQ(recv(client.get(), &byte, 1, 0), 0);
}

TEST_F(ServerOfManyTest, JobsOfOthersAreUnknownWhateverIsAsked) {
  HoldDevice();
  const UniqueFd bea = GreetAs(kBea);
  const int64_t job = Submit(bea, "key");
  for (const Peer& peer : {kAna, kAdmin}) {
    const UniqueFd other = GreetAs(peer);
    for (const RequestBody& request : std::vector<RequestBody>{
             StatusRequest{{job}}, WaitRequest{{job}}, SubscribeRequest{{job}}, LogRequest{job}}) {
      const nlohmann::json theirs = Ask(other, request);
      EXPECT_EQ(CodeOf(theirs), "unknown_job") << RequestName(request);
    }
    EXPECT_EQ(Ask(other, ListRequest{})["jobs"].size(), 0u);
  }
  const UniqueFd ana = GreetAs(kAna);
  EXPECT_EQ(CodeOf(Ask(ana, CancelRequest{{job}})), "unknown_job");
  EXPECT_EQ(Ask(ana, CleanRequest{})["removed"], 0);
  EXPECT_EQ(Ask(bea, StatusRequest{{job}})["jobs"][0]["state"], "queued");
  // Root is told all.
  const UniqueFd root = GreetAs(kRoot);
  EXPECT_EQ(Ask(root, StatusRequest{{job}})["jobs"][0]["output_path"], "/secret/out.pkl");
}

TEST_F(ServerOfManyTest, AListOfEveryonesJobsTellsOfOthersOnlyWhoseTurnItIs) {
  HoldDevice();
  const UniqueFd ana = GreetAs(kAna);
  const UniqueFd bea = GreetAs(kBea);
  const int64_t theirs = Submit(bea, "key");
  const int64_t own = Submit(ana, "key");
  const nlohmann::json jobs = Ask(ana, ListRequest{.everyone = true})["jobs"];
  ASSERT_EQ(jobs.size(), 3u);
  for (const nlohmann::json& job : jobs) {
    EXPECT_EQ(job["redacted"], job["id"] != own) << job;
    EXPECT_EQ(job["output_path"], job["id"] == own ? "/secret/out.pkl" : "") << job;
  }
  EXPECT_EQ(jobs[1]["id"], theirs);
  EXPECT_EQ(jobs[1]["uid"], kBea.uid);
  const auto before = nlohmann::json::parse(
      fmt::format(R"([{{"uid":{},"jobs":1}},{{"uid":1001,"jobs":1}}])", geteuid()));
  EXPECT_EQ(jobs[2]["jobs_before"], before);
  EXPECT_EQ(jobs[2]["reason"], nullptr);
  EXPECT_EQ(Ask(ana, StatsRequest{})["running_uid"], geteuid());
}

TEST_F(ServerOfManyTest, NobodyHearsEventsOfOthers) {
  HoldDevice();
  const UniqueFd ana = GreetAs(kAna);
  const UniqueFd admin = GreetAs(kAdmin);
  const UniqueFd bea = GreetAs(kBea);
  for (const UniqueFd* client : {&ana, &admin, &bea}) Ask(*client, SubscribeRequest{});
  Say(bea, SomeJob("key"), 3);
  EXPECT_THAT(Hear(bea), HasSubstr("\"event\""));
  EXPECT_EQ(Hear(ana), "");
  EXPECT_EQ(Hear(admin), "");
}

TEST_F(ServerOfManyTest, AdministratorsCancelAndDrainUsersDoNot) {
  HoldDevice();
  const UniqueFd bea = GreetAs(kBea);
  const int64_t job = Submit(bea, "key");
  const UniqueFd ana = GreetAs(kAna);
  EXPECT_EQ(CodeOf(Ask(ana, DrainRequest{})), "not_allowed");
  EXPECT_EQ(CodeOf(Ask(ana, ShutdownRequest{})), "not_allowed");
  EXPECT_FALSE(dispatcher_->draining() || dispatcher_->stopping());
  const UniqueFd admin = GreetAs(kAdmin);
  EXPECT_EQ(CodeOf(Ask(admin, CancelRequest{{job, 999}})), "unknown_job");
  const nlohmann::json cancelled = Ask(admin, CancelRequest{{job}})["jobs"][0];
  EXPECT_EQ(cancelled["state"], "cancelled");
  EXPECT_EQ(cancelled["redacted"], true);
  EXPECT_EQ(cancelled["output_path"], "");
  EXPECT_EQ(CodeOf(Ask(admin, DrainRequest{})), "ok");
  EXPECT_TRUE(dispatcher_->draining());
}

TEST_F(ServerOfManyTest, OneKeyOfTwoUsersIsTwoJobs) {
  HoldDevice();
  const UniqueFd ana = GreetAs(kAna);
  const UniqueFd bea = GreetAs(kBea);
  EXPECT_NE(Submit(ana, "key"), Submit(bea, "key"));
}

class FewPlacesTest : public ServerOfManyTest {
 protected:
  FewPlacesTest() {
    limits_ = {.connections_per_uid = 8,
               .connections_per_user = 3,
               .connections = 12,
               .connections_kept_for_root = 64,
               .ids_waited_for = 5,
               .buffered_bytes = 300'000};
  }
};

TEST_F(FewPlacesTest, AUserHasFewerConnectionsThanAnAdministrator) {
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(GreetAs(kAna));
    EXPECT_EQ(CodeOf(Ask(clients.back(), StatsRequest{})), "ok");
  }
  EXPECT_THAT(Hear(ConnectAs(kAna)), HasSubstr("too_many_connections"));
  for (int i = 0; i < 4; ++i) {
    clients.push_back(GreetAs(kAdmin));
    EXPECT_EQ(CodeOf(Ask(clients.back(), StatsRequest{})), "ok");
  }
  clients.erase(clients.begin());
  Hear(clients.back());
  clients.push_back(GreetAs(kAna));
  EXPECT_EQ(CodeOf(Ask(clients.back(), StatsRequest{})), "ok");
}

TEST_F(FewPlacesTest, TheLastPlacesAreRoots) {
  std::vector<UniqueFd> clients;
  for (uid_t uid = 2000; uid < 2009; ++uid) {  // a quarter of twelve is kept
    clients.push_back(GreetAs({uid, 60, {kGroup}}));
    EXPECT_EQ(CodeOf(Ask(clients.back(), StatsRequest{})), "ok");
  }
  EXPECT_THAT(Hear(ConnectAs(kAna)), HasSubstr("too_many_connections"));
  const UniqueFd root = GreetAs(kRoot);
  EXPECT_EQ(CodeOf(Ask(root, StatsRequest{})), "ok");
}

TEST_F(FewPlacesTest, WaitsAreCountedOverAllConnectionsOfAUser) {
  HoldDevice();
  const UniqueFd ana = GreetAs(kAna);
  std::vector<int64_t> jobs;
  for (const char* key : {"a", "b", "c"}) jobs.push_back(Submit(ana, key));
  Say(ana, WaitRequest{jobs}, 7);
  const UniqueFd again = GreetAs(kAna);
  EXPECT_EQ(CodeOf(Ask(again, WaitRequest{jobs})), "too_many_jobs");
  const UniqueFd bea = GreetAs(kBea);
  const int64_t theirs = Submit(bea, "a");
  Say(bea, WaitRequest{{theirs}}, 7);
  Say(bea, CancelRequest{{theirs}}, 8);
  EXPECT_THAT(Hear(bea), HasSubstr("\"id\":7,\"ok\":true"));
  // Those that are over make room.
  Say(ana, CancelRequest{jobs}, 8);
  EXPECT_THAT(Hear(ana), HasSubstr("\"id\":7,\"ok\":true"));
  EXPECT_EQ(CodeOf(Ask(again, WaitRequest{jobs})), "ok");
}

TEST_F(FewPlacesTest, TheConnectionWithWhichAUserHoldsTooMuchIsClosed) {
  const std::string half(200'000, 'x');
  const UniqueFd first = GreetAs(kAna);
  const UniqueFd second = GreetAs(kAna);
  const UniqueFd bea = GreetAs(kBea);
  for (const UniqueFd* client : {&first, &second, &bea}) {
    for (size_t sent = 0; sent < half.size();) {
      const ssize_t size =
          send(client->get(), half.data() + sent, half.size() - sent, MSG_NOSIGNAL);
      if (size > 0) sent += static_cast<size_t>(size);
      if (size < 0 && errno != EAGAIN) break;
      Hear(*client, milliseconds(1));
    }
    Hear(*client, milliseconds(100));
  }
  const auto hung = [](const UniqueFd& client) {
    char byte;
    return recv(client.get(), &byte, 1, MSG_PEEK) == 0;
  };
  EXPECT_FALSE(hung(first));
  EXPECT_TRUE(hung(second));
  EXPECT_FALSE(hung(bea));
  // There is room again.
  const UniqueFd third = GreetAs(kAna);
  EXPECT_EQ(CodeOf(Ask(third, StatsRequest{})), "ok");
}

}  // namespace
}  // namespace tiny_knn
