// Every job the daemon knows: their states in memory and in the journal, kept in step. The rules of
// the queue (limits, keys, attempts, retention) stand here; sockets and processes do not.
//
// Changes gather until Flush writes all of them in one transaction, so that a hundred submissions
// that arrived together cost one sync. Nobody outside may hear of a change before Flush has
// returned OK.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/protocol/client_messages.h"
#include "daemon/queue/job.h"
#include "daemon/queue/journal.h"
#include "daemon/queue/scheduler.h"

namespace tiny_knn {

struct QueueLimits {
  int64_t queued_jobs_per_uid = 20000;
  int64_t queued_bytes_per_uid = int64_t{64} << 20;  // of memory that those take
  int64_t queued_jobs = 100'000;                     // of all users together
  int64_t queued_bytes = int64_t{256} << 20;
  int64_t finished_jobs_per_uid = 1000;
  double finished_seconds = 30 * 24 * 3600.0;
  int crashes = 3;  // a job that was running when the daemon died is queued again so often
};

// How a job ended. Texts come from a worker, that is from its user: what is longer than these jobs
// need is cut or left out.
struct JobOutcome {
  JobState state = JobState::kDone;  // a finished one
  std::string error_code = {};
  std::string error = {};
  std::string device = {};
  std::string docs = {};
  std::string output_path = {};  // empty: as it was
  std::string report_json = {};
  double search_seconds = 0;
  bool left_temporary = false;  // the worker died: its temporary file may be there
};

// Thread-compatible.
class JobQueue {
 public:
  // `wall_clock`: seconds since 1970. Loads the journal: a job that was running is queued again
  // with leftover_attempt set, or failed ("aborted") when it has used up its chances; written with
  // the first Flush, which Open does. A disk without space is no error here: those changes wait.
  static absl::StatusOr<std::unique_ptr<JobQueue>> Open(std::unique_ptr<Journal> journal,
                                                        const QueueLimits& limits,
                                                        std::function<double()> wall_clock);

  struct Submitted {
    int64_t job = 0;
    bool existed = false;  // the same uid has submitted the same spec under this key before
  };
  // The job is visible by Find and Order at once, durable after Flush (also one that `existed`: it
  // may have been submitted since the last Flush). kQueueFull, kKeyConflict, kJournalFull,
  // kJournalFailed, kBadRequest (no output path, or a value that no client's decoder lets through).
  // `spec_json` is request.spec's.
  std::variant<Submitted, ErrorReply> Submit(int64_t uid, const SubmitRequest& request,
                                             std::string spec_json);

  const Job* Find(int64_t job) const;                           // null: unknown
  const std::map<int64_t, Job>& jobs() const { return jobs_; }  // by id
  const Scheduler& scheduler() const { return scheduler_; }

  // queued -> running, one attempt more. REQUIRES: the job is queued.
  void Start(int64_t job);
  // running (or queued) -> a finished state. `ran_seconds` by a steady clock; charges the user.
  void Finish(int64_t job, const JobOutcome& outcome, double ran_seconds);
  // The device was kept busy for that user without a job that ended: an attempt to be repeated, a
  // leftover's removal. In memory only.
  void Charge(int64_t uid, double seconds);
  // running -> queued, when the daemon stops or its worker could not be used. Not a crash of the
  // job's.
  void Requeue(int64_t job, bool left_temporary);
  // The temporary file of leftover_attempt is gone.
  void ForgetLeftover(int64_t job);
  // Forgets the finished jobs of `uid` (nothing: of everyone); returns their ids. Those stay whose
  // outcome is not in the journal yet, or whose temporary file (leftover_attempt) is still there.
  std::vector<int64_t> Clean(std::optional<int64_t> uid);
  // Forgets finished jobs beyond the limits of retention, those that finished first; returns their
  // ids. Costs a look at each user when there is nothing to do.
  std::vector<int64_t> Expire();

  bool has_changes() const { return !changed_.empty() || !deleted_.empty(); }

  // One transaction. On an error: submissions since the last Flush are undone and listed in
  // `undone_submissions`, starts are undone (queued again, same attempt), outcomes stay as they are
  // and are written by a later Flush. Whoever holds replies for them answers accordingly. No job is
  // in both lists; an undone submission is unknown to Find.
  struct FlushResult {
    absl::Status status;
    std::vector<int64_t> undone_submissions;
    std::vector<int64_t> undone_starts;
  };
  FlushResult Flush();

  // Why nothing is accepted now; nothing when submissions are welcome.
  std::optional<ErrorReply> Refusal() const;
  Journal& journal() { return *journal_; }

  // The tag of a job's running (or left over) attempt: "{journal tag}-{job}-{attempt}".
  std::string TemporaryTag(int64_t job, int attempt) const;

 private:
  JobQueue(std::unique_ptr<Journal> journal, const QueueLimits& limits,
           std::function<double()> wall_clock);
  // What the journal does not know of a job yet.
  struct Change {
    bool inserted = false;  // the job itself
    // Queued -> running since the last Flush, from these values.
    bool started = false;
    int attempt_before = 0;
    std::optional<double> started_at_before;
    bool other = false;  // anything that a failed Flush keeps
  };
  struct Waiting {
    int64_t jobs = 0;
    int64_t bytes = 0;
  };
  absl::Status Restore(std::vector<Job> jobs);
  void RestoreRunning(Job& job);
  // Why `job` would be one too many.
  std::optional<ErrorReply> CheckRoom(const Job& job) const;
  // Into and out of the waiting jobs.
  void Enqueue(const Job& job);
  void Dequeue(const Job& job);
  // The job and its change; null if no job has this id.
  Job* Touch(int64_t job, Change** change);
  // Out of memory and, if it is there, out of the journal.
  void Forget(int64_t job, bool in_journal);
  void Undo(FlushResult& result);

  std::unique_ptr<Journal> journal_;
  const QueueLimits limits_;
  const std::function<double()> wall_clock_;
  int64_t next_id_ = 1;
  std::map<int64_t, Job> jobs_;
  std::map<std::pair<int64_t, std::string>, int64_t> by_key_;  // (uid, key)
  std::map<int64_t, Waiting> waiting_by_uid_;
  Waiting waiting_;                                         // of all users
  std::map<int64_t, std::deque<int64_t>> finished_by_uid_;  // in the order in which they finished
  Scheduler scheduler_;
  std::map<int64_t, Change> changed_;
  std::vector<int64_t> deleted_;
};

}  // namespace tiny_knn
