// Brings the queue and the worker together: takes jobs in, starts the next one, writes down how it
// ended, and lets nobody hear of anything that is not on disk. No sockets.
//
// Whatever arrives in one turn of the event loop is written in one transaction at the end of the
// turn: submissions, the start of the next job, outcomes. Replies wait for it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "boost/asio/io_context.hpp"
#include "boost/asio/steady_timer.hpp"
#include "daemon/protocol/client_messages.h"
#include "daemon/queue/job_log.h"
#include "daemon/queue/job_queue.h"
#include "daemon/queue/rate_model.h"
#include "daemon/supervisor/job_runner.h"
#include "daemon/supervisor/options.h"

namespace tiny_knn {

// Who wants to know. Called from the event loop.
class DispatcherListener {
 public:
  virtual ~DispatcherListener() = default;
  // Its state, progress or reason is another now, and written down as far as it has to be.
  virtual void OnJobChanged(int64_t job) = 0;
  // Nothing runs and nothing will: stopped, or drained to the end. Once.
  virtual void OnStopped() = 0;
};

// Event loop only.
class Dispatcher {
 public:
  // `listener` outlives this.
  Dispatcher(boost::asio::io_context& loop, const SupervisorOptions& options, WorkerBinary binary,
             std::vector<std::string> worker_environment, std::unique_ptr<JobQueue> queue,
             JobLogs logs, DispatcherListener& listener, WorkerUsers users = UsersOfThisProcess());
  // Root's jobs run each as its user, those of others as themselves.
  static WorkerUsers UsersOfThisProcess();

  // Begins with what the journal held.
  void Start();

  // Calls `then` at the end of this turn, when it is known what could be written down. Every change
  // made and every state read before it is then settled.
  using Then = std::function<void(const JobQueue::FlushResult&)>;
  void WhenWritten(Then then);

  // What JobQueue::Submit says, refusals of a stopping or draining daemon and of what is beyond its
  // device included. Durable when WhenWritten says so.
  std::variant<JobQueue::Submitted, ErrorReply> Submit(int64_t uid, const SubmitRequest& request);
  // A queued job is cancelled now; a running one is asked to end, and may still be done before
  // that; a finished one stays as it is.
  void Cancel(int64_t id);
  // Forgets finished jobs of `uid` and their logs; returns how many.
  int64_t Clean(std::optional<int64_t> uid);

  // No new jobs; when the queue is empty, OnStopped. Or the opposite.
  void SetDraining(bool draining);
  // No job is started any more. The running one may finish within options.grace (not with `now`),
  // else it is queued again. Then OnStopped.
  void Stop(bool now);
  bool draining() const { return draining_; }
  bool stopping() const { return stopping_; }

  const JobQueue& queue() const { return *queue_; }
  const JobRunner& runner() const { return runner_; }
  const RateModel& rates() const { return rates_; }
  JobLogs& logs() { return logs_; }
  // That the last job ran on; empty before the first.
  const std::string& last_device() const { return last_device_; }
  // "ok", or why nothing is accepted.
  std::string JournalState() const;

 private:
  void ScheduleFlush();
  void Flush();
  void StartNext();
  // Of that worker's user; whether one is being removed now.
  bool RemoveALeftover(int64_t user);
  bool RemoveAnyLeftover();
  std::optional<RunningJob> Describe(int64_t id, int attempt);
  void AddLeftover(const Job& job);
  void OnEnd(int64_t id, const std::optional<JobOutcome>& outcome, double ran_seconds);
  void OnLeftoverRemoved(int64_t id, double seconds);
  void Learn(const Job& job);
  void Note(int64_t job, const std::string& line);  // into the job's log
  void RetryLater();
  void Expire();
  void CheckStopped();

  boost::asio::io_context& loop_;
  const SupervisorOptions options_;
  DispatcherListener& listener_;
  std::unique_ptr<JobQueue> queue_;
  JobLogs logs_;
  RateModel rates_;
  JobRunner runner_;
  boost::asio::steady_timer retry_timer_;
  boost::asio::steady_timer expire_timer_;
  boost::asio::steady_timer grace_timer_;
  boost::asio::steady_timer log_timer_;

  std::string last_device_;
  bool flush_scheduled_ = false;
  bool blocked_ = false;  // the last transaction failed: nothing is started before one succeeds
  bool retrying_ = false;
  bool log_scheduled_ = false;
  std::vector<Then> waiting_;
  std::vector<int64_t> changed_;          // to be told after the flush
  std::vector<std::string> ends_to_log_;  // for the daemon's log, after the flush and the replies
  std::optional<RunningJob> starting_;    // marked as running; begins when that is on disk
  // Jobs whose leftover is to be removed, by the user as whom that has to be done; no empty ones.
  std::map<int64_t, std::vector<int64_t>> leftovers_;
  int ended_since_expire_ = 0;  // jobs
  bool draining_ = false;
  bool stopping_ = false;
  bool stopped_ = false;
};

}  // namespace tiny_knn
