// A job as the supervisor and its journal hold it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "daemon/protocol/job_view.h"

namespace tiny_knn {

struct Job {
  int64_t id = 0;
  int64_t uid = 0;
  std::string key;
  int priority = 0;
  int64_t timeout_seconds = 0;  // 0: none
  std::string spec_json;        // JobSpecToJson
  JobShape shape;
  std::string queries_path;  // of the spec, for display
  std::string docs_path;
  std::string output_path;  // absolute

  JobState state = JobState::kQueued;
  int attempt = 0;  // how often it was started; names the temporary file of the running attempt
  int crashes = 0;  // attempts that ended with the daemon itself
  double submitted_at = 0;  // seconds since 1970
  std::optional<double> started_at;
  std::optional<double> finished_at;
  std::optional<double> ran_seconds;  // of the last attempt, by a clock that never jumps
  std::string error_code;
  std::string error;
  std::string device;
  std::string docs;  // "warm" or "cold"
  std::string report_json;
  double search_seconds = 0;
  // An attempt may have left a temporary file behind that nobody has removed yet: its number, else
  // 0.
  int leftover_attempt = 0;
};

}  // namespace tiny_knn
