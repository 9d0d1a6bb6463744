// Jobs and the daemon's state as people read them. Pure functions, safe to call from any thread.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "daemon/protocol/client_messages.h"
#include "daemon/protocol/job_view.h"

namespace tiny_knn {

// A job and the name of who submitted it.
struct JobRow {
  JobView job;
  std::string user;
};

// A line of titles and one for each job, each at most `width` columns (0: without limit) and with a
// line end. Where the width does not suffice, columns are left out, those that say least first; the
// last column takes what is left, and is cut.
std::string FormatJobTable(std::span<const JobRow> rows, int width);

// The job in one line, without a line end: what `status --watch` prints where it cannot redraw.
std::string FormatJobLine(const JobRow& row);

// Everything known of one job, a line each, with line ends. Nothing is cut: error messages and
// paths are shown whole. Times are by the local clock.
std::string FormatJob(const JobRow& row);

// The daemon's device, memory, warm docs and troubles, in one line or a few; with line ends.
// `running_user`: whose job runs, if that is somebody else.
std::string FormatDevice(const StatsReply& stats, const std::string& running_user, int width);

// "40%", rounded down: never "100%" before all is searched.
std::string FormatPercent(double progress);

}  // namespace tiny_knn
