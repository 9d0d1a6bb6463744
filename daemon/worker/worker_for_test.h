// A worker in a forked process, on a real socketpair. Messages are waited for, never slept for.
#pragma once

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "core/io/unique_fd.h"
#include "daemon/protocol/line_decoder.h"
#include "daemon/protocol/worker_messages.h"
#include "daemon/worker/engines_for_test.h"
#include "daemon/worker/worker.h"
#include "gtest/gtest.h"

namespace tiny_knn {

inline constexpr int kExitAtEof = 0;
inline constexpr int kExitAtError = 7;
inline constexpr int kPatienceMs = 60'000;  // then a test has failed

inline WarmRunnerOptions RunnerForTest() {
  WarmRunnerOptions options;
  options.open_engine = OpenEngineForTest;
  // As if the files had been written an hour ago.
  options.now_ns = [] { return WallClockNs() + int64_t{3600} * 1'000'000'000; };
  return options;
}

[[noreturn]] inline void BeWorker(int socket) {
  _exit(RunWorkerWith(socket, RunnerForTest()).ok() ? kExitAtEof : kExitAtError);
}

// Gone with the test, whatever happens.
class TestWorker {
 public:
  TestWorker() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    ours_ = UniqueFd(ends[0]);
    UniqueFd theirs(ends[1]);
    pid_ = fork();
    EXPECT_GE(pid_, 0);
    if (pid_ == 0) {
      ours_.Reset();
      BeWorker(theirs.Release());
    }
  }
  ~TestWorker() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  TestWorker(const TestWorker&) = delete;
  TestWorker& operator=(const TestWorker&) = delete;

  pid_t pid() const { return pid_; }

  void SendBytes(const std::string& bytes) {
    EXPECT_EQ(send(ours_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  void Send(const ToWorker& message) {
    const absl::StatusOr<std::string> line = EncodeToWorker(message);
    ASSERT_TRUE(line.ok()) << line.status();
    SendBytes(*line + "\n");
  }

  // The next message; nothing at the end.
  std::optional<FromWorker> Next() {
    for (;;) {
      if (const std::optional<std::string> line = decoder_.Next()) {
        absl::StatusOr<FromWorker> message = DecodeFromWorker(*line);
        EXPECT_TRUE(message.ok()) << message.status() << ": " << *line;
        if (!message.ok()) return std::nullopt;
        return *std::move(message);
      }
      pollfd readable = {.fd = ours_.get(), .events = POLLIN, .revents = 0};
      const int ready = poll(&readable, 1, kPatienceMs);
      EXPECT_EQ(ready, 1) << "the worker says nothing";
      char bytes[4096];
      const ssize_t received = ready == 1 ? recv(ours_.get(), bytes, sizeof(bytes), 0) : 0;
      if (received <= 0) return std::nullopt;
      EXPECT_TRUE(decoder_.Feed({bytes, static_cast<size_t>(received)}).ok());
    }
  }

  // The next message of that type; others before it are skipped.
  template <typename Message>
  std::optional<Message> NextOf() {
    while (std::optional<FromWorker> message = Next()) {
      if (auto* wanted = std::get_if<Message>(&*message)) return std::move(*wanted);
    }
    ADD_FAILURE() << "the worker ended without it";
    return std::nullopt;
  }
  WorkerFinished Finish() { return NextOf<WorkerFinished>().value_or(WorkerFinished()); }

  void CloseSocket() { ours_.Reset(); }
  // Its exit code; -1 for a signal.
  int Wait() {
    int status = 0;
    EXPECT_EQ(waitpid(std::exchange(pid_, 0), &status, 0) > 0, true);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  UniqueFd ours_;
  LineDecoder decoder_;
  pid_t pid_ = -1;
};

}  // namespace tiny_knn
