// The service manager's side of a daemon, as systemd defines it: what it hands down (a socket that
// it listens on already) and what it wants to hear (ready, what goes on, stopping). No library of
// systemd's is needed for either: sd_listen_fds(3) and sd_notify(3) describe both in full.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/unique_fd.h"

namespace tiny_knn {

// Tells the service manager about us. Thread-compatible.
class ServiceManager {
 public:
  // There is none: nothing is sent.
  ServiceManager() = default;
  // At `address`, as $NOTIFY_SOCKET gives it: a path, or a name in the abstract namespace that
  // begins with '@'. InvalidArgument for anything else.
  static absl::StatusOr<ServiceManager> At(std::string_view address);
  // As $NOTIFY_SOCKET says, which is taken out of the environment: no child may speak for us.
  static absl::StatusOr<ServiceManager> FromEnvironment();

  // `status` is one line for people. READY and STOPPING wait up to two seconds for a manager that
  // is busy; a status that it cannot take now is dropped. Errors are for the log: nothing depends
  // on them here.
  absl::Status Ready(std::string_view status);
  absl::Status Status(std::string_view status);
  absl::Status Stopping(std::string_view status);

  bool exists() const { return socket_.valid(); }

 private:
  absl::Status Send(const std::string& message, int flags) const;

  UniqueFd socket_;
  std::string address_;  // as in sun_path: an abstract one begins with a NUL
};

// A listening socket that was there before this process.
struct InheritedSocket {
  UniqueFd socket;   // close-on-exec, non-blocking
  std::string path;  // that it is bound to
  bool exists() const { return socket.valid(); }
};

// What $LISTEN_PID, $LISTEN_FDS and $LISTEN_FDNAMES say, which are taken out of the environment.
// None if there are none, or if they are meant for another process. FailedPrecondition for anything
// but one socket of the Unix domain, of type stream, that listens at a path.
// REQUIRES: called before anything is opened, since what is inherited is known by number.
absl::StatusOr<InheritedSocket> TakeInheritedSocket();

}  // namespace tiny_knn
