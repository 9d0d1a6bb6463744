#include "daemon/worker/supervisor_link.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "daemon/protocol/build_id.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kHeartbeat(kWorkerHeartbeatSeconds);
constexpr std::chrono::milliseconds kBeforeRest(50);
constexpr size_t kReceiveBytes = 64 * 1024;

int64_t JobOf(const WorkerTask& task) {
  return std::visit([](const auto& message) { return message.job; }, task.message);
}

// Milliseconds until then, rounded up, for poll.
int PollTimeout(Clock::time_point then) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(then - Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 60'000));
}

}  // namespace

SupervisorLink::SupervisorLink(UniqueFd socket) : socket_(std::move(socket)) {
  Send(WorkerHello{.build = std::string(kBuildId), .pid = getpid()});
  thread_ = std::thread([this] { Listen(); });
}

SupervisorLink::~SupervisorLink() {
  {
    const std::lock_guard lock(mutex_);
    current_.reset();
  }
  // Wakes the thread up.
  shutdown(socket_.get(), SHUT_RDWR);
  thread_.join();
}

std::optional<WorkerTask> SupervisorLink::Next(const std::function<void()>& rest) {
  std::unique_lock lock(mutex_);
  current_.reset();
  const auto goes_on = [this] { return ended_ || !waiting_.empty(); };
  if (!changed_.wait_for(lock, kBeforeRest, goes_on)) {
    lock.unlock();
    rest();
    lock.lock();
    changed_.wait(lock, goes_on);
  }
  if (ended_) return std::nullopt;
  current_ = std::move(waiting_.front());
  waiting_.pop_front();
  return current_;
}

absl::Status SupervisorLink::status() {
  const std::lock_guard lock(mutex_);
  return status_;
}

void SupervisorLink::Send(const FromWorker& message) {
  const std::string line = EncodeFromWorker(message) + "\n";
  const std::lock_guard lock(sending_);
  Write(line, true);
}

void SupervisorLink::Send(const std::vector<FromWorker>& messages) {
  std::string lines;
  for (const FromWorker& message : messages) {
    lines += EncodeFromWorker(message);
    lines += '\n';
  }
  const std::lock_guard lock(sending_);
  Write(lines, true);
}

void SupervisorLink::SendIfRoom(const FromWorker& message) {
  const std::string line = EncodeFromWorker(message) + "\n";
  const std::unique_lock lock(sending_, std::try_to_lock);
  if (lock.owns_lock()) Write(line, false);
}

void SupervisorLink::Write(std::string_view bytes, bool wait) {
  while (!bytes.empty()) {
    const ssize_t sent =
        send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT));
    if (sent < 0) {
      if (errno == EINTR) continue;
      return;  // no room, or nobody there: then the listener finds the end too
    }
    bytes.remove_prefix(static_cast<size_t>(sent));
    wait = true;  // a line that was begun has to be ended
  }
}

void SupervisorLink::Listen() {
  Clock::time_point next_heartbeat = Clock::now() + kHeartbeat;
  for (;;) {
    pollfd readable = {.fd = socket_.get(), .events = POLLIN, .revents = 0};
    const int ready = poll(&readable, 1, PollTimeout(next_heartbeat));
    if (ready < 0 && errno != EINTR) {
      return End(absl::InternalError(
          fmt::format("cannot poll the supervisor's socket: {}", std::strerror(errno))));
    }
    if (Clock::now() >= next_heartbeat) {
      SendIfRoom(WorkerAlive{});
      next_heartbeat = Clock::now() + kHeartbeat;
    }
    if (ready > 0 && !Receive()) return;
  }
}

bool SupervisorLink::Receive() {
  char bytes[kReceiveBytes];
  const ssize_t received = recv(socket_.get(), bytes, sizeof(bytes), MSG_DONTWAIT);
  if (received < 0) {
    if (errno == EINTR || errno == EAGAIN) return true;
    if (errno != ECONNRESET) {
      End(absl::InternalError(
          fmt::format("cannot read from the supervisor's socket: {}", std::strerror(errno))));
      return false;
    }
  }
  if (received <= 0) {  // closed; ECONNRESET: with messages of ours unread
    End(absl::OkStatus());
    return false;
  }
  const absl::Status fed = decoder_.Feed({bytes, static_cast<size_t>(received)});
  while (std::optional<std::string> line = decoder_.Next()) {
    absl::StatusOr<ToWorker> message = DecodeToWorker(*line);
    if (!message.ok()) {
      End(message.status());
      return false;
    }
    Take(*std::move(message));
  }
  if (!fed.ok()) End(fed);
  return fed.ok();
}

void SupervisorLink::Take(ToWorker message) {
  const std::lock_guard lock(mutex_);
  if (const auto* cancel = std::get_if<WorkerCancel>(&message)) {
    // A job that is not here has been answered; the answers have passed each other.
    const auto cancel_if = [&](WorkerTask& task) {
      if (JobOf(task) == cancel->job) task.cancelled->store(true);
    };
    if (current_) cancel_if(*current_);
    std::for_each(waiting_.begin(), waiting_.end(), cancel_if);
    return;
  }
  WorkerTask task{.message = {}, .cancelled = std::make_shared<std::atomic<bool>>(false)};
  if (auto* run = std::get_if<WorkerRun>(&message)) {
    task.message = std::move(*run);
  } else {
    task.message = std::get<WorkerRemove>(std::move(message));
  }
  waiting_.push_back(std::move(task));
  changed_.notify_one();
}

void SupervisorLink::End(const absl::Status& status) {
  const std::lock_guard lock(mutex_);
  // Nobody wants the result any more, and a search may take long to hear of it. What it leaves
  // behind is removed by the next daemon.
  if (status.ok() && current_) _exit(EXIT_SUCCESS);
  if (current_) current_->cancelled->store(true);
  status_ = status;
  ended_ = true;
  changed_.notify_one();
}

}  // namespace tiny_knn
