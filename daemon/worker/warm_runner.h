// One job after the other: narrowed to the daemon's limits, on an engine and with docs kept from
// the jobs before.
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/job/machine_limits.h"
#include "core/job/run_job.h"
#include "core/search/search.h"
#include "daemon/protocol/worker_messages.h"
#include "daemon/worker/file_version.h"
#include "daemon/worker/warm_cache.h"
#include "gpu/open_engine.h"

namespace tiny_knn {

// Who hears of a running job, and may cancel it.
class JobListener : public Progress {
 public:
  // Lines for the job's log, without line ends.
  virtual void Log(const std::vector<std::string>& lines) = 0;
};

struct WarmRunnerOptions {
  std::string device = "auto";  // of the daemon; see EngineOptions
  // For tests, which open other engines and cannot wait until files have settled.
  std::function<absl::StatusOr<OpenedEngine>(const EngineOptions&)> open_engine = OpenEngine;
  std::function<int64_t()> now_ns = WallClockNs;
};

// Thread-compatible. Changes the process's file mode creation mask.
class WarmRunner {
 public:
  explicit WarmRunner(WarmRunnerOptions options);

  // Runs it to its end; every failure is in the answer, lack of memory included. Docs that were
  // kept are gone after a lack of memory, so that the next job has theirs.
  WorkerFinished Run(const WorkerRun& run, JobListener& listener);
  // What can be done when nobody waits: the files of a job that is done stay open until then, and
  // where this process's limits stand is found anew for the next one.
  void Rest();

 private:
  struct KeptEngine {
    std::unique_ptr<Engine> engine;
    int64_t gpu_memory_bytes = 0;
  };
  struct ChosenEngine {
    std::string name;  // "cpu", "cuda:0"
    Engine* engine = nullptr;
    std::string note;  // for the user; may be empty
  };

  // What one job may use.
  struct Limits {
    JobSpec spec;              // with its own limits narrowed
    int64_t budget_bytes = 0;  // of the search and all warm docs together
    int64_t warm_bytes = 0;    // of all warm docs
    // What may be kept beside a search that takes `plan_bytes`.
    int64_t WarmBeside(int64_t plan_bytes) const {
      return std::min(warm_bytes, budget_bytes - plan_bytes);
    }
  };
  // The docs file as it is before the job opens it.
  struct ExaminedDocs {
    std::optional<FileVersion> version;  // none where no regular file can be seen
    bool may_be_kept = false;            // every later change gives it another version
    std::string why_not;                 // for the user; may be empty
  };
  Limits Narrow(const WorkerRun& run) const;

  absl::Status RunNarrowed(const WorkerRun& run, JobListener& listener, WorkerFinished& finished);
  // May sync the file.
  ExaminedDocs ExamineDocs(const std::string& path) const;
  absl::StatusOr<ChosenEngine> ChooseEngine(const JobSpec& spec);

  // Docs for the job to use or fill, with room made for them, or null with room made for the search
  // alone. May give the job a plan that leaves room.
  WarmDocs* ChooseWarmDocs(const Limits& limits, const WarmKey& key, const Engine& engine,
                           PreparedJob& job);
  static bool MakeRoomInPlan(const Limits& limits, int64_t warm_bytes, PreparedJob& job);

  const WarmRunnerOptions options_;
  const mode_t own_umask_;
  const int usable_cpus_;  // read once: that takes longer than preparing a small job
  MemoryGauge memory_;
  std::string auto_name_;                      // what "auto" turned out to be; empty: not known yet
  std::string auto_note_;                      // and why; see OpenedEngine
  std::map<std::string, KeptEngine> engines_;  // by name
  std::optional<PreparedJob> done_;            // see Rest
  WarmCache cache_;                            // goes before the engines that made what is in it
};

}  // namespace tiny_knn
