// A daemon for tests of clients: a real socket whose far end is played by a script.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <variant>

#include "core/io/unique_fd.h"
#include "daemon/client/client.h"
#include "daemon/protocol/client_messages.h"
#include "daemon/protocol/line_decoder.h"
#include "gtest/gtest.h"

namespace tiny_knn {

// A folder of its own, short enough for a socket's path; gone with the object.
class Folder {
 public:
  Folder() {
    std::string name = "/tmp/tiny-knn-client-XXXXXX";
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  ~Folder() {
    for (const std::string& file : files_) unlink(file.c_str());
    EXPECT_EQ(rmdir(path_.c_str()), 0);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string File(const std::string& name) { return *files_.insert(path_ + "/" + name).first; }

 private:
  std::string path_;
  std::set<std::string> files_;
};

// A socket that listens at `path`; the caller closes it.
inline int Listen(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  EXPECT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(listen(fd, 5), 0);
  return fd;
}

// The far end of one connection, played by a script.
class Peer {
 public:
  explicit Peer(int fd) : fd_(fd) {}

  // The next line; empty at the end of the stream.
  std::string ReadLine() {
    for (;;) {
      if (auto line = decoder_.Next()) return *line;
      char bytes[4096];
      const ssize_t count = read(fd_.get(), bytes, sizeof(bytes));
      if (count <= 0) return "";
      EXPECT_TRUE(decoder_.Feed({bytes, static_cast<size_t>(count)}).ok());
    }
  }
  Request ReadRequest() {
    std::variant<Request, RequestError> request = DecodeRequest(ReadLine());
    EXPECT_TRUE(std::holds_alternative<Request>(request));
    return std::holds_alternative<Request>(request) ? std::get<Request>(request) : Request();
  }
  void Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0) return;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
  }
  void Answer(int64_t id, ReplyBody body) {
    Send(EncodeReply({.id = id, .body = std::move(body)}) + "\n");
  }
  void SendEvent(int64_t sequence, int64_t job, JobState state) {
    JobEvent event{.sequence = sequence, .job = {}};
    event.job.id = job;
    event.job.state = state;
    Send(EncodeEvent(event) + "\n");
  }
  void AnswerHello() {
    const Request request = ReadRequest();
    EXPECT_TRUE(std::holds_alternative<HelloRequest>(request.body));
    Answer(request.id, HelloReply{.protocol = 1, .features = {"log"}, .build = "b", .uid = 7});
  }
  void Close() { fd_.Reset(); }

 private:
  UniqueFd fd_;
  LineDecoder decoder_;
};

// Accepts one connection and lets `script` play it, in a thread of its own.
class FakeDaemon {
 public:
  explicit FakeDaemon(std::function<void(Peer&)> script)
      : listener_(Listen(path_)), thread_([this, script = std::move(script)] {
          Peer peer(accept(listener_.get(), nullptr, nullptr));
          script(peer);
        }) {}
  ~FakeDaemon() {
    shutdown(listener_.get(), SHUT_RDWR);  // an accept that nobody answered ends
    thread_.join();
  }
  FakeDaemon(const FakeDaemon&) = delete;
  FakeDaemon& operator=(const FakeDaemon&) = delete;

  DaemonClient::Options options() const {
    DaemonClient::Options options;
    options.socket_paths = {path_};
    options.client_name = "client_test";
    return options;
  }
  const std::string& path() const { return path_; }

 private:
  Folder folder_;
  const std::string path_ = folder_.File("daemon.sock");
  UniqueFd listener_;
  std::thread thread_;
};

}  // namespace tiny_knn
