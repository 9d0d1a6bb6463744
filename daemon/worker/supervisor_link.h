// The worker's end of the socketpair: a thread that hears the supervisor and shows that the process
// is alive, whatever the jobs do.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "core/io/unique_fd.h"
#include "daemon/protocol/line_decoder.h"
#include "daemon/protocol/worker_messages.h"

namespace tiny_knn {

// What the supervisor wants done.
struct WorkerTask {
  std::variant<WorkerRun, WorkerRemove> message;
  std::shared_ptr<std::atomic<bool>> cancelled;  // never null; set by a WorkerCancel
};

// Next is for one thread; the Send functions may be called from any.
class SupervisorLink {
 public:
  // Says hello and starts to listen.
  explicit SupervisorLink(UniqueFd socket);
  ~SupervisorLink();
  SupervisorLink(const SupervisorLink&) = delete;
  SupervisorLink& operator=(const SupervisorLink&) = delete;

  // The next task, in the order they came; waits for one, and calls `rest` when none has come for
  // a while. Not before: what runs right after an answer keeps the supervisor from the CPU that it
  // woke up on. Whoever asks is done with the task before. Nothing once the supervisor has gone or
  // could not be understood: see status. While a task is being done, the end of the socket ends the
  // process at once.
  std::optional<WorkerTask> Next(const std::function<void()>& rest);

  // Why Next returned nothing: OK when the supervisor closed the socket.
  absl::Status status();

  // Waits until the supervisor has room for it. A supervisor that is gone is no error here.
  void Send(const FromWorker& message);
  // All at once: the supervisor wakes up for them once.
  void Send(const std::vector<FromWorker>& messages);
  // Not sent where that would take waiting: for messages that another one will replace.
  void SendIfRoom(const FromWorker& message);

 private:
  void Listen();
  // Whether to go on listening.
  bool Receive();
  void Take(ToWorker message);
  void End(const absl::Status& status);
  // REQUIRES: sending_ is held.
  void Write(std::string_view bytes, bool wait);

  const UniqueFd socket_;
  std::mutex sending_;  // so that lines do not mix

  LineDecoder decoder_;  // of the thread
  std::mutex mutex_;     // of all that follows
  std::condition_variable changed_;
  std::deque<WorkerTask> waiting_;
  std::optional<WorkerTask> current_;
  bool ended_ = false;
  absl::Status status_;

  std::thread thread_;
};

}  // namespace tiny_knn
