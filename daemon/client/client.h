// A connection to the daemon, as a program without an event loop wants it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/protocol/client_messages.h"

namespace tiny_knn {

// Thread-compatible. Blocking; every wait ends early with Cancelled once `interrupted` says so (it
// is asked whenever a signal was caught, and every 100 ms).
class DaemonClient {
 public:
  struct Options {
    std::vector<std::string> socket_paths;  // tried in this order; see SocketsToTry
    std::string client_name;                // "tiny-knn 0.1.0"
    std::chrono::milliseconds reply_timeout = std::chrono::seconds(10);
    std::function<bool()> interrupted = [] { return false; };
  };

  // Connects and says hello. Unavailable when no daemon listens, naming the socket and saying how
  // to start one; PermissionDenied; FailedPrecondition when no protocol is common.
  static absl::StatusOr<std::unique_ptr<DaemonClient>> Connect(const Options& options);
  // The same in two steps, for who has something to do until the daemon has answered hello: no call
  // may come between them. Errors as Connect's.
  static absl::StatusOr<std::unique_ptr<DaemonClient>> Begin(const Options& options);
  absl::Status Greet();
  ~DaemonClient();
  DaemonClient(const DaemonClient&) = delete;
  DaemonClient& operator=(const DaemonClient&) = delete;

  const HelloReply& daemon() const;
  const std::string& socket_path() const;

  // Sends a request and waits for its reply; events that arrive meanwhile are kept for NextEvent.
  // An ErrorReply becomes its Status (ToStatus). Unavailable: the connection broke, the request may
  // or may not have been heard. DeadlineExceeded after reply_timeout; kWait has none.
  template <typename ReplyType>
  absl::StatusOr<ReplyType> Call(RequestBody body) {
    absl::StatusOr<ReplyBody> reply = CallAny(std::move(body));
    if (!reply.ok()) return reply.status();
    if (ReplyType* typed = std::get_if<ReplyType>(&*reply)) return *std::move(typed);
    return absl::InternalError("the daemon answered with another kind of reply");
  }

  // The next event of a subscription; nothing when none came for `timeout`.
  absl::StatusOr<std::optional<JobEvent>> NextEvent(std::chrono::milliseconds timeout);

 private:
  struct State;
  explicit DaemonClient(std::unique_ptr<State> state);
  absl::StatusOr<ReplyBody> CallAny(RequestBody body);
  std::unique_ptr<State> state_;
};

// A key that no other submission has: 32 hexadecimal digits of the system's random numbers.
std::string NewSubmitKey();

}  // namespace tiny_knn
