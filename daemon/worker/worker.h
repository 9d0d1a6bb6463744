// The worker: runs jobs one after the other for the supervisor on the other end of a socketpair,
// and keeps the engine and the last docs warm in between. `tiny-knn worker`, started by tiny-knnd
// only.
//
// Two threads: the caller's runs jobs; the other one reads the supervisor's messages, so that a
// cancel is heard during a search, and sends a sign of life every kWorkerHeartbeatSeconds. At the
// end of the socket the process exits at once, whatever it was doing: its supervisor is gone.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "daemon/worker/warm_runner.h"

namespace tiny_knn {

struct WorkerOptions {
  int socket = 3;               // connected; owned by RunWorker
  std::string device = "auto";  // of the daemon: what a job that asks for "auto" gets
};

// Returns when the supervisor has closed the socket and no job runs. Errors: the socket failed, or
// the supervisor is gone or sent what is not a message. From then on SIGINT, SIGHUP, SIGPIPE and
// SIGXFSZ are ignored, and the process dies with its parent.
absl::Status RunWorker(const WorkerOptions& options);

// The same with jobs run in another way, for tests; `runner` says the device.
absl::Status RunWorkerWith(int socket, const WarmRunnerOptions& runner);

}  // namespace tiny_knn
