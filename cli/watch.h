// `tiny-knn status --watch`: jobs as they change.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "cli/console.h"
#include "cli/daemon_connection.h"

namespace tiny_knn {

struct WatchOptions {
  DaemonTexts daemon;
  std::vector<int64_t> ids;  // empty: all jobs
  bool all = false;          // also those that were finished before
  bool everyone = false;     // also those of other users, which are only looked at now and then
  bool json = false;
  std::optional<int> most_finished;  // of a redrawn table; nothing: all
};

// On a terminal that can redraw, the table again and again; elsewhere, and with `json`, a line for
// every change. Ends with OK when a signal was caught (that is how one stops watching), when
// standard output has no reader, or when all of `ids` are finished. Survives restarts of the
// daemon.
absl::Status WatchJobs(const WatchOptions& options, Console& console);

}  // namespace tiny_knn
