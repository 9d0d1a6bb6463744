// tiny-knnd as a whole: opens what it needs, runs the event loop, and ends in order.
#pragma once

#include <functional>

#include "absl/status/status.h"
#include "daemon/supervisor/options.h"

namespace tiny_knn {

// Serves until it is told to stop: by `shutdown`, by `drain` once the queue is empty, or by SIGTERM
// or SIGINT (the running job may finish within options.grace; a second one stops at once). `ready`
// is called once, when clients can connect. Takes over the process: its signals, its limit of open
// files. Returns OK after an orderly end; errors are those of starting.
absl::Status RunSupervisor(const SupervisorOptions& options, const std::function<void()>& ready);

}  // namespace tiny_knn
