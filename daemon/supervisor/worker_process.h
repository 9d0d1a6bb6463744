// A worker as a process: started, talked to, ended. What it says is decoded here; what it means is
// the job runner's.
#pragma once

#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
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

// How a worker is started, and for whom.
struct WorkerStart {
  std::string device;
  std::vector<std::string> environment;  // all of it
  // Nothing: as the user that this process is. Else that user, whose passwd entry says which groups
  // he has; this process has to be root then.
  std::optional<uid_t> user;
  // After SIGKILL; then it is left behind. A process that hangs in the kernel cannot be killed.
  std::chrono::milliseconds dying = std::chrono::seconds(10);
  std::function<void(pid_t)> kill;  // for tests; empty: SIGKILL
};

// How a worker ended.
struct WorkerEnd {
  enum class Kind {
    kEnded,       // by itself or by a signal, at some time after it had become its user
    kNotStarted,  // no fault of its user's: no process to be had, or no program to be executed
    kNoSuchUser,  // there is no passwd entry
    kNotTheUser,  // it could not become its user
  };
  Kind kind = Kind::kEnded;
  std::string why;  // one line: "was killed by signal 9 (Killed); ..."
};

// Event loop only.
class WorkerProcess : public std::enable_shared_from_this<WorkerProcess> {
 public:
  struct Callbacks {
    std::function<void(FromWorker)> on_message;
    // Once: the process is gone and everything it said has been handed out, or it could not be
    // killed and was left behind.
    std::function<void(const WorkerEnd& end)> on_exit;
  };

  // Fork and exec: `{binary} worker --device {device}`, with a socketpair as descriptor 3,
  // /dev/null as 0, 1 and 2, no other descriptor, folder /, that environment, and SIGKILL when this
  // process dies; as another user also without a way back (BecomeUser). Unavailable when there is
  // no process to be had. This process has to have one thread, see worker_identity.h.
  static absl::StatusOr<std::shared_ptr<WorkerProcess>> Start(boost::asio::io_context& loop,
                                                              const WorkerBinary& binary,
                                                              const WorkerStart& start,
                                                              Callbacks callbacks);
  ~WorkerProcess();

  void Send(const ToWorker& message);
  // SIGKILL; on_exit follows. `why` is then said instead of the signal; empty: the signal.
  void Kill(const std::string& why);
  // SIGKILL, and nothing that it has said or says is handed out any more: for one that has nothing
  // to do. on_exit follows.
  void Discard(const std::string& why);
  // Nobody is told of it any more: for whoever ends before it does.
  void Disown();
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
  WorkerProcess(boost::asio::io_context& loop, const WorkerStart& start, pid_t pid,
                UniqueFd process, UniqueFd failure, Socket socket, Callbacks callbacks);
  void Read();
  void Write();
  void WatchExit();
  void OnSocketEnd();
  void OnExit();
  void SendKill();
  void LeaveBehind();
  void ReportIfOver();

  const pid_t pid_;
  Socket socket_;
  boost::asio::posix::stream_descriptor process_;  // pidfd: readable when the process has ended
  const UniqueFd failure_;  // what a child that did not get as far as the program says of it
  boost::asio::steady_timer timer_;
  boost::asio::steady_timer dying_timer_;
  const std::optional<uid_t> user_;
  const std::chrono::milliseconds dying_;
  const std::function<void(pid_t)> kill_;
  Callbacks callbacks_;
  LineDecoder decoder_;
  std::array<char, 16 << 10> incoming_;
  std::string outgoing_;
  std::string writing_;
  std::chrono::steady_clock::time_point last_heard_;
  WorkerEnd end_;
  bool socket_over_ = false;
  bool discarded_ = false;
  bool killed_ = false;
  bool left_behind_ = false;
  bool exited_ = false;
  bool reported_ = false;
};

}  // namespace tiny_knn
