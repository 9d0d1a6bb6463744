// A worker as a process: started, talked to, ended. What it says is decoded here; what it means is
// the job runner's.
#pragma once

#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>  // boost/asio/awaitable.hpp of 1.74 forgets it
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "boost/asio/io_context.hpp"
#include "boost/asio/local/stream_protocol.hpp"
#include "boost/asio/posix/stream_descriptor.hpp"
#include "boost/asio/steady_timer.hpp"
#include "core/io/unique_fd.h"
#include "daemon/protocol/line_decoder.h"
#include "daemon/protocol/worker_messages.h"

namespace tiny_knn {

// How a worker is started. The binary is held open, so that it can be executed where the worker's
// user may not read, and stays the one that was checked.
struct WorkerBinary {
  UniqueFd file;  // O_PATH
  std::string path;
};
// Errors name the path: NotFound, PermissionDenied, InvalidArgument (no executable file).
absl::StatusOr<WorkerBinary> OpenWorkerBinary(const std::string& path);

// The environment of a worker: of `environment` (as environ) the variables that tell a program
// where its libraries, its devices and its sanitizer's options are, and those that begin with
// TINY_KNN_.
std::vector<std::string> WorkerEnvironment(char** environment);

// Event loop only.
class WorkerProcess : public std::enable_shared_from_this<WorkerProcess> {
 public:
  struct Callbacks {
    std::function<void(FromWorker)> on_message;
    // Once: the process is gone and everything it said has been handed out. `why` is one line: "was
    // killed by signal 9 (Killed); ...".
    std::function<void(const std::string& why)> on_exit;
  };

  // Fork and exec: `{binary} worker --device {device}`, with a socketpair as descriptor 3,
  // /dev/null as 0, 1 and 2, no other descriptor, folder /, that environment, and SIGKILL when this
  // process dies. Unavailable when there is no process to be had.
  static absl::StatusOr<std::shared_ptr<WorkerProcess>> Start(
      boost::asio::io_context& loop, const WorkerBinary& binary, const std::string& device,
      const std::vector<std::string>& environment, Callbacks callbacks);
  ~WorkerProcess();

  void Send(const ToWorker& message);
  // SIGKILL; on_exit follows. `why` is then said instead of the signal; empty: the signal.
  void Kill(const std::string& why);
  // Ends it in peace: it exits at the end of its socket, or is killed after a while. on_exit
  // follows.
  void Finish();

  // Since anything was heard from it, or since it was started.
  std::chrono::steady_clock::duration silence() const;
  // Whether it has said something that was not read yet: then it is we who are late.
  bool has_unread() const;
  pid_t pid() const { return pid_; }

 private:
  using Socket = boost::asio::local::stream_protocol::socket;
  WorkerProcess(boost::asio::io_context& loop, pid_t pid, UniqueFd process, Socket socket,
                Callbacks callbacks);
  void Read();
  void Write();
  void WatchExit();
  void OnSocketEnd();
  void OnExit();
  void ReportIfOver();

  const pid_t pid_;
  Socket socket_;
  boost::asio::posix::stream_descriptor process_;  // pidfd: readable when the process has ended
  boost::asio::steady_timer timer_;
  Callbacks callbacks_;
  LineDecoder decoder_;
  std::array<char, 16 << 10> incoming_;
  std::string outgoing_;
  std::string writing_;
  std::chrono::steady_clock::time_point last_heard_;
  std::string why_;
  bool socket_over_ = false;
  bool exited_ = false;
  bool reported_ = false;
};

}  // namespace tiny_knn
