// Runs one job at a time in a worker process, and makes sure that it ends: cancelled, out of time,
// silent, dead or done. A worker belongs to one user: it is kept for that user's next job and
// replaced when another's turn comes.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "daemon/protocol/client_messages.h"
#include "daemon/protocol/worker_messages.h"
#include "daemon/queue/job_queue.h"
#include "daemon/supervisor/options.h"
#include "daemon/supervisor/user_backoff.h"
#include "daemon/supervisor/worker_process.h"

namespace tiny_knn {

// What to run: a job's own numbers, and its spec.
struct RunningJob {
  int64_t id = 0;
  int64_t uid = 0;  // the user as whom it runs
  int attempt = 0;
  std::string temporary_tag;
  int64_t timeout_seconds = 0;  // 0: none
  JobSpec spec;
};

// As whom workers run.
enum class WorkerUsers {
  kOwn,         // all as the user that this process is, whoever submitted the job
  kEach,        // each as the user of its job; this process has to be root
  kInNameOnly,  // for tests: kept apart as by kEach, but nobody becomes anybody
};

// Event loop only.
class JobRunner {
 public:
  // Called from the event loop, never from within a method of the runner.
  struct Callbacks {
    std::function<void(int64_t job)> on_progress;
    std::function<void(int64_t job, const std::string& line)> on_log;
    // The job is over. Nothing in `outcome`: no worker could be started; it has to be queued again.
    // `ran_seconds`: of the device, for which its user is to be charged; not how long another
    // user's worker took to end.
    std::function<void(int64_t job, std::optional<JobOutcome> outcome, double ran_seconds)> on_end;
    std::function<void(int64_t job, double seconds)> on_leftover_removed;
    std::function<void()> on_ready;  // ready() or MayStart(somebody) has become true
  };

  // How long things may take; tests are less patient.
  struct Timing {
    // Between asking a job to end and killing its worker.
    std::chrono::milliseconds patience = std::chrono::seconds(5);
    // Of a leftover: then it stays.
    std::chrono::milliseconds removal = std::chrono::minutes(1);
    std::chrono::milliseconds silence = std::chrono::seconds(kWorkerSilenceSeconds);
    std::chrono::milliseconds silence_check = std::chrono::seconds(2);
    // Before a worker is started again after the second that died in a row; doubled with each one.
    std::chrono::milliseconds first_backoff = std::chrono::milliseconds(100);
    std::chrono::milliseconds longest_backoff = std::chrono::seconds(30);
    // Of a worker after SIGKILL; then it is left behind.
    std::chrono::milliseconds dying = std::chrono::seconds(10);
    std::function<void(pid_t)> kill = {};  // for tests; see WorkerStart
  };

  JobRunner(boost::asio::io_context& loop, const SupervisorOptions& options, WorkerBinary binary,
            std::vector<std::string> environment, Callbacks callbacks, const Timing& timing,
            WorkerUsers users);
  ~JobRunner();

  // Whether Run or RemoveLeftover may be called, if MayStart says so of the job's user.
  bool ready() const;
  // Whether that user's turn may come: not for a while after his workers have died one after the
  // other. Nobody else waits for that.
  bool MayStart(int64_t uid) const;
  // The user as whom a job of `uid` runs, to whom its worker belongs.
  int64_t WorkerUser(int64_t uid) const;
  void Run(RunningJob job);
  // Removes what a dead attempt of the job left in the output's folder. on_leftover_removed
  // follows, also when that could not be done, because trying again would not help; not after
  // Abandon.
  void RemoveLeftover(RunningJob job);

  // The worker is asked to give the job up, and killed when it does not. The job may still be done.
  void Cancel();
  // Ends the worker at once: the job that runs ends without an outcome and must be queued again,
  // the worker is gone when on_ready is called. One that was asked to end already ends as such.
  void Abandon();

  std::optional<int64_t> running_job() const;
  double progress() const { return progress_; }  // of the running job, 0 to 1
  double ran_seconds() const;                    // of the running job
  bool removing() const { return removing_; }    // a leftover
  bool has_worker() const { return worker_ != nullptr; }
  // Whose it is, and so whose docs are warm; nothing when there is none to be used again.
  std::optional<int64_t> worker_uid() const;
  // Why no worker can be started for anybody, as far as is known; empty when all is well. It is
  // tried again and again, so jobs wait.
  const std::string& trouble() const { return trouble_; }
  const std::vector<WarmDocsStats>& warm_docs() const { return warm_docs_; }

 private:
  using Clock = std::chrono::steady_clock;
  enum class Ending { kNone, kCancelled, kOutOfTime, kAbandoned };

  void Begin();  // sends the task to its user's worker, started if there is none
  bool StartWorker(int64_t user);
  void ArmEndTimer();
  void SendTask();
  void OnMessage(FromWorker message);
  void OnHello(const WorkerHello& hello);
  void OnFinished(WorkerFinished finished);
  void OnExit(const WorkerEnd& end);
  void OnWorkerDied(const WorkerEnd& end);
  std::optional<JobOutcome> OutcomeOfFailedStart(const WorkerEnd& end);
  void AwaitBackoff();
  void AskToEnd(Ending ending);
  void EndBeforeItBegan();
  void End(std::optional<JobOutcome> outcome);
  void BecomeIdle();
  void Watch();  // for silence
  JobOutcome OutOfTime(bool left_temporary) const;

  boost::asio::io_context& loop_;
  const SupervisorOptions options_;
  const WorkerBinary binary_;
  const std::vector<std::string> environment_;
  const Callbacks callbacks_;
  const Timing timing_;
  const WorkerUsers users_;
  const int64_t own_user_;
  boost::asio::steady_timer end_timer_;  // the job's time is up, or it was asked to end
  boost::asio::steady_timer silence_timer_;
  boost::asio::steady_timer idle_timer_;     // then the worker is released
  boost::asio::steady_timer backoff_timer_;  // until another worker may be started

  std::shared_ptr<WorkerProcess> worker_;
  int64_t worker_uid_ = 0;
  bool replacing_ = false;  // another user's: it has to be gone before the task's is started
  bool greeted_ = false;    // the worker has said hello
  bool releasing_ = false;  // it was told to end
  std::optional<RunningJob> task_;
  bool untried_ = false;   // sent to a worker that had served others, and not heard of since
  int64_t spared_ = 0;     // the last job that was queued again for being untried: only once
  bool removing_ = false;  // the task is to remove its leftover, not to run it
  Ending ending_ = Ending::kNone;
  Clock::time_point started_;
  double progress_ = 0;
  UserBackoff backoff_;  // by deaths since the user's last job that ended well
  std::string trouble_;
  std::vector<WarmDocsStats> warm_docs_;
};

}  // namespace tiny_knn
