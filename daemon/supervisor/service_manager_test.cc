#include "daemon/supervisor/service_manager.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "boost/asio/io_context.hpp"
#include "daemon/supervisor/service_status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr int kPlace = 3;  // where a service manager puts the socket

// A Unix socket bound to `name`: a path, or abstract with an '@' in front.
UniqueFd Bound(const std::string& name, int type) {
  UniqueFd fd(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, name.data(), name.size());
  if (name[0] == '@') address.sun_path[0] = '\0';
  const size_t size = offsetof(sockaddr_un, sun_path) + name.size() + (name[0] == '@' ? 0 : 1);
  EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), static_cast<socklen_t>(size)), 0)
      << name << ": " << std::strerror(errno);
  return fd;
}

class ServiceManagerTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/tkXXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    folder_ = name;
    saved_ = fcntl(kPlace, F_DUPFD_CLOEXEC, 10);  // -1: nothing was there
  }
  void TearDown() override {
    if (saved_ >= 0) {
      dup2(saved_, kPlace);
      close(saved_);
    } else {
      close(kPlace);
    }
    for (const char* variable : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET"}) {
      unsetenv(variable);
    }
    std::filesystem::remove_all(folder_);
  }

  // As a service manager would start this process: `fd` (if any) inherited, and these variables.
  absl::StatusOr<InheritedSocket> TakePassed(int fd, const std::string& count = "1",
                                             const std::string& pid = std::to_string(getpid())) {
    if (fd >= 0) {
      EXPECT_EQ(dup2(fd, kPlace), kPlace);
    } else {
      close(kPlace);
    }
    setenv("LISTEN_PID", pid.c_str(), 1);
    setenv("LISTEN_FDS", count.c_str(), 1);
    setenv("LISTEN_FDNAMES", "queue:more", 1);
    absl::StatusOr<InheritedSocket> taken = TakeInheritedSocket();
    for (const char* variable : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) {
      EXPECT_EQ(std::getenv(variable), nullptr) << variable << " is there for children to find";
    }
    return taken;
  }
  void ExpectRefused(const absl::StatusOr<InheritedSocket>& taken, const std::string& why) {
    EXPECT_TRUE(absl::IsFailedPrecondition(taken.status())) << taken.status();
    EXPECT_THAT(std::string(taken.status().message()), HasSubstr(why));
  }
  // Everything that has arrived.
  static std::vector<std::string> Received(const UniqueFd& fd) {
    std::vector<std::string> messages;
    std::array<char, 4096> buffer;
    ssize_t size;
    while ((size = recv(fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT)) >= 0) {
      messages.emplace_back(buffer.data(), static_cast<size_t>(size));
    }
    return messages;
  }

  std::string folder_;
  int saved_ = -1;
};

TEST_F(ServiceManagerTest, WithoutVariablesThereIsNobody) {
  const auto taken = TakeInheritedSocket();
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_FALSE(taken->exists());
  auto manager = ServiceManager::FromEnvironment();
  ASSERT_TRUE(manager.ok()) << manager.status();
  EXPECT_FALSE(manager->exists());
  EXPECT_TRUE(manager->Ready("idle").ok());
}

TEST_F(ServiceManagerTest, AListeningSocketIsTakenAndNotPassedOn) {
  const UniqueFd socket = Bound(folder_ + "/s", SOCK_STREAM);
  ASSERT_EQ(listen(socket.get(), 8), 0);
  const auto taken = TakePassed(socket.get());
  ASSERT_TRUE(taken.ok()) << taken.status();
  ASSERT_TRUE(taken->exists());
  EXPECT_EQ(taken->socket.get(), kPlace);
  EXPECT_EQ(taken->path, folder_ + "/s");
  EXPECT_NE(fcntl(kPlace, F_GETFD) & FD_CLOEXEC, 0);
  EXPECT_NE(fcntl(kPlace, F_GETFL) & O_NONBLOCK, 0);
}

TEST_F(ServiceManagerTest, SocketsForAnotherProcessAreLeftAlone) {
  const UniqueFd socket = Bound(folder_ + "/s", SOCK_STREAM);
  ASSERT_EQ(listen(socket.get(), 8), 0);
  const auto taken = TakePassed(socket.get(), "1", "1");
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_FALSE(taken->exists());
  EXPECT_GE(fcntl(kPlace, F_GETFD), 0);
}

TEST_F(ServiceManagerTest, AnythingButOneSocketIsRefused) {
  const UniqueFd socket = Bound(folder_ + "/s", SOCK_STREAM);
  ASSERT_EQ(listen(socket.get(), 8), 0);
  for (const char* count : {"0", "2", "", "-1", "x", "1x", "99999999999999999999"}) {
    ExpectRefused(TakePassed(socket.get(), count), "expected 1");
  }
  ExpectRefused(TakePassed(socket.get(), "2"), "passes 2 sockets (queue:more)");
  ExpectRefused(TakePassed(socket.get(), "1", "me"), "LISTEN_PID=me");
}

TEST_F(ServiceManagerTest, TheWrongKindOfDescriptorIsRefused) {
  ExpectRefused(TakePassed(-1), "passes nothing");
  const UniqueFd file(open("/dev/null", O_RDWR | O_CLOEXEC));
  ExpectRefused(TakePassed(file.get()), "no socket");
  const UniqueFd datagrams = Bound(folder_ + "/d", SOCK_DGRAM);
  ExpectRefused(TakePassed(datagrams.get()), "another type");
  const UniqueFd silent = Bound(folder_ + "/q", SOCK_STREAM);
  ExpectRefused(TakePassed(silent.get()), "does not listen");
  const UniqueFd internet(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(listen(internet.get(), 8), 0);
  ExpectRefused(TakePassed(internet.get()), "another domain");
  const UniqueFd abstract = Bound("@tiny-knn" + folder_, SOCK_STREAM);
  ASSERT_EQ(listen(abstract.get(), 8), 0);
  ExpectRefused(TakePassed(abstract.get()), "without an absolute path");
}

TEST_F(ServiceManagerTest, MessagesArriveAtAPathAndAtAnAbstractName) {
  for (const std::string& name : {folder_ + "/notify", "@tiny-knn" + folder_ + "/notify"}) {
    const UniqueFd socket = Bound(name, SOCK_DGRAM);
    setenv("NOTIFY_SOCKET", name.c_str(), 1);
    auto manager = ServiceManager::FromEnvironment();
    EXPECT_EQ(std::getenv("NOTIFY_SOCKET"), nullptr);
    ASSERT_TRUE(manager.ok()) << manager.status();
    EXPECT_TRUE(manager->Ready("idle").ok());
    EXPECT_TRUE(manager->Status("job 1 runs").ok());
    EXPECT_TRUE(manager->Stopping("stopping").ok());
    EXPECT_THAT(Received(socket), ElementsAre("READY=1\nSTATUS=idle", "STATUS=job 1 runs",
                                              "STOPPING=1\nSTATUS=stopping"))
        << name;
  }
}

TEST_F(ServiceManagerTest, AddressesThatNobodyCanListenAtAreRefused) {
  for (const std::string& name : {std::string("relative"), std::string("/"), std::string("@"),
                                  std::string("vsock:2:1"), "/" + std::string(107, 'x')}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ServiceManager::At(name).status())) << name;
  }
  EXPECT_TRUE(ServiceManager::At("/" + std::string(106, 'x')).ok());
}

TEST_F(ServiceManagerTest, AManagerThatIsGoneIsAnErrorAndNoMore) {
  auto manager = ServiceManager::At(folder_ + "/nobody");
  ASSERT_TRUE(manager.ok()) << manager.status();
  EXPECT_TRUE(absl::IsUnavailable(manager->Ready("idle")));
}

TEST_F(ServiceManagerTest, AStatusForAManagerThatDoesNotReadIsDropped) {
  const UniqueFd socket = Bound(folder_ + "/notify", SOCK_DGRAM);
  auto manager = ServiceManager::At(folder_ + "/notify");
  ASSERT_TRUE(manager.ok()) << manager.status();
  absl::Status status;
  for (int i = 0; i < 100000 && status.ok(); ++i) status = manager->Status("idle");
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
}

TEST(ServiceStatusTest, SaysWhatGoesOnWithoutNames) {
  const auto text = [](std::optional<int64_t> running, int64_t waiting, bool draining,
                       bool stopping) {
    return ServiceStatus::Describe({running, waiting, draining, stopping});
  };
  EXPECT_EQ(text({}, 0, false, false), "idle");
  EXPECT_EQ(text(12, 0, false, false), "job 12 runs");
  EXPECT_EQ(text(12, 1, false, false), "job 12 runs, 1 waits");
  EXPECT_EQ(text(12, 3, false, false), "job 12 runs, 3 wait");
  EXPECT_EQ(text({}, 1, false, false), "1 job waits");
  EXPECT_EQ(text({}, 2, true, false), "takes no new jobs; 2 jobs wait");
  EXPECT_EQ(text(12, 3, true, true), "stopping; job 12 runs, 3 wait");
}

class ServiceStatusLoopTest : public ServiceManagerTest {
 protected:
  static constexpr std::chrono::milliseconds kInterval{200};
  void SetUp() override {
    ServiceManagerTest::SetUp();
    socket_ = Bound(folder_ + "/notify", SOCK_DGRAM);
    status_ = std::make_unique<ServiceStatus>(
        loop_, *ServiceManager::At(folder_ + "/notify"), [this] { return state_; }, kInterval);
  }
  boost::asio::io_context loop_;
  UniqueFd socket_;
  ServiceStatus::State state_;
  std::unique_ptr<ServiceStatus> status_;
};

TEST_F(ServiceStatusLoopTest, NothingIsSaidBeforeReadyNorWhereNothingShownHasChanged) {
  state_.running = 1;
  status_->Changed();
  EXPECT_THAT(Received(socket_), IsEmpty());
  status_->Ready();
  EXPECT_THAT(Received(socket_), ElementsAre("READY=1\nSTATUS=job 1 runs"));
  status_->Changed();
  loop_.run();  // returns at once: an idle daemon has no timer
  EXPECT_THAT(Received(socket_), IsEmpty());
}

TEST_F(ServiceStatusLoopTest, ManyChangesAreOneMessageAnIntervalAndTheLastIsTold) {
  status_->Ready();
  const auto begun = std::chrono::steady_clock::now();
  for (int i = 1; i <= 1000; ++i) {
    state_.running = i;
    status_->Changed();
  }
  EXPECT_THAT(Received(socket_), ElementsAre("READY=1\nSTATUS=idle", "STATUS=job 1 runs"));
  loop_.run();
  EXPECT_GE(std::chrono::steady_clock::now() - begun, 2 * kInterval);
  EXPECT_THAT(Received(socket_), ElementsAre("STATUS=job 1000 runs"));
}

TEST_F(ServiceStatusLoopTest, StoppingDoesNotWaitForTheInterval) {
  status_->Ready();
  state_.running = 1;
  status_->Changed();
  state_.stopping = true;
  status_->Changed();
  status_->Changed();
  EXPECT_THAT(Received(socket_), ElementsAre("READY=1\nSTATUS=idle", "STATUS=job 1 runs",
                                             "STOPPING=1\nSTATUS=stopping; job 1 runs"));
}

}  // namespace
}  // namespace tiny_knn
