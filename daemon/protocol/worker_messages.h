// What the supervisor and its worker say to each other over their socketpair: one JSON object a
// line. Both come from one build, which their hellos compare, so nothing here is versioned. A
// worker belongs to its user, who may make it say anything: the supervisor decodes it like a
// client.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "core/job/job_spec.h"
#include "daemon/protocol/client_messages.h"

namespace tiny_knn {

// ---- To the worker ------------------------------------------------------------------------------

struct WorkerRun {
  int64_t job = 0;
  int attempt = 0;
  std::string temporary_tag;  // see RunJobOptions
  int64_t most_memory_bytes =
      0;                        // for the search and all warm docs together; the spec may say less
  int64_t most_warm_bytes = 0;  // for warm docs alone; 0: no limit but that
  int most_threads = 0;         // 0: no limit of the daemon's
  JobSpec spec;
};
struct WorkerCancel {
  int64_t job = 0;
};
// Remove what a killed attempt left behind: AtomicFile::RemoveLeftover. Answered by WorkerRemoved.
struct WorkerRemove {
  int64_t job = 0;
  std::string temporary_tag;
  JobSpec spec;
};
using ToWorker = std::variant<WorkerRun, WorkerCancel, WorkerRemove>;

absl::StatusOr<std::string> EncodeToWorker(const ToWorker& message);
absl::StatusOr<ToWorker> DecodeToWorker(std::string_view line);

// ---- From the worker ----------------------------------------------------------------------------

struct WorkerHello {
  std::string build;  // kBuildId
  int64_t pid = 0;
};
struct WorkerAlive {};  // every kWorkerHeartbeatSeconds, from a thread that does nothing else
struct WorkerProgress {
  int64_t job = 0;
  int64_t pairs_done = 0;
  int64_t pairs_total = 0;
};
struct WorkerLog {  // one line for the job's log
  int64_t job = 0;
  std::string text;
};
struct WorkerFinished {
  int64_t job = 0;
  std::string error_code;  // name of a status code, "ok" when done; see StatusCodeName
  std::string error;
  std::string output_path;
  std::string device;
  std::string docs;         // "warm" or "cold"
  std::string report_json;  // see JobView
  double search_seconds = 0;
  double total_seconds = 0;              // from taking the job to its result
  std::vector<WarmDocsStats> warm_docs;  // what is kept now
};
struct WorkerRemoved {
  int64_t job = 0;
};
using FromWorker = std::variant<WorkerHello, WorkerAlive, WorkerProgress, WorkerLog, WorkerFinished,
                                WorkerRemoved>;

std::string EncodeFromWorker(const FromWorker& message);
absl::StatusOr<FromWorker> DecodeFromWorker(std::string_view line);

inline constexpr int kWorkerHeartbeatSeconds = 5;
inline constexpr int kWorkerSilenceSeconds = 30;  // then it is killed

}  // namespace tiny_knn
