// tiny-knnd as a whole: opens what it needs, runs the event loop, and ends in order.
#pragma once

#include <functional>

#include "absl/status/status.h"
#include "daemon/supervisor/options.h"
#include "daemon/supervisor/service_manager.h"

namespace tiny_knn {

// What a service manager gives and hears; by default there is none.
struct ServiceLink {
  InheritedSocket socket;  // in place of one made at options.socket_path
  ServiceManager manager;
};

struct SupervisorCallbacks {
  // Once, when no other daemon can have the state folder or the socket any more, and before
  // anything is read there: now its log may be written to. An error ends the start.
  std::function<absl::Status()> on_sole;
  std::function<void()> on_ready;  // once, when clients can connect
};

// Serves until it is told to stop: by `shutdown`, by `drain` once the queue is empty, or by SIGTERM
// or SIGINT (the running job may finish within options.grace; a second one stops at once). Takes
// over the process: its signals, its limit of open files. Returns OK after an orderly end; an error
// after on_ready is Internal, an exception and so a bug; others are those of starting.
absl::Status RunSupervisor(const SupervisorOptions& options, ServiceLink service,
                           const SupervisorCallbacks& callbacks);

}  // namespace tiny_knn
