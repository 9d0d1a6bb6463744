#include "daemon/supervisor/server.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/io/unique_fd.h"
#include "daemon/queue/journal.h"
#include "daemon/supervisor/listen_socket.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

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
    SupervisorOptions options;
    options.device = "waits";
    options.max_memory_bytes = 1 << 20;
    dispatcher_ =
        std::make_unique<Dispatcher>(loop_, options, *std::move(binary), std::vector<std::string>{},
                                     *std::move(queue), *std::move(logs), *this);
    limits_.connections_per_uid = 4;
    server_ = std::make_unique<Server>(loop_, socket_->ReleaseDescriptor(), options, *dispatcher_,
                                       limits_);
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

  boost::asio::io_context loop_;
  char socket_folder_[32] = "/tmp/tiny_knn_XXXXXX";
  std::unique_ptr<ListenSocket> socket_;
  std::unique_ptr<Dispatcher> dispatcher_;
  Server::Limits limits_;
  std::unique_ptr<Server> server_;
};

TEST_F(ServerTest, AWaitThatNamesAJobTwiceIsAnsweredOnce) {
  const UniqueFd client = Connect();
  Say(client, HelloRequest{}, 1);
  SubmitRequest submit;
  submit.key = "key";
  submit.spec.queries_path = "/q.npy";
  submit.spec.docs_path = "/d.npy";
  submit.spec.output_path = "/out.pkl";
  Say(client, submit, 2);
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

}  // namespace
}  // namespace tiny_knn
