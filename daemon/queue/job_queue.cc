#include "daemon/queue/job_queue.h"

#include <algorithm>
#include <cstddef>
#include <tuple>

#include "daemon/queue/submission.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// Longest texts that are kept of how a job ended.
constexpr size_t kMostErrorBytes = 4096;
constexpr size_t kMostNameBytes = 64;
constexpr size_t kMostReportBytes = size_t{64} << 10;

// The first bytes of `text`, without half a character at the end.
std::string Cut(std::string_view text, size_t most_bytes) {
  if (text.size() > most_bytes) {
    while (most_bytes > 0 && (static_cast<unsigned char>(text[most_bytes]) & 0xc0) == 0x80) {
      --most_bytes;
    }
    text = text.substr(0, most_bytes);
  }
  return std::string(text);
}

// About what a job takes in memory.
int64_t BytesOf(const Job& job) {
  return static_cast<int64_t>(sizeof(Job) + job.key.size() + job.spec_json.size() +
                              job.queries_path.size() + job.docs_path.size() +
                              job.output_path.size());
}

}  // namespace

JobQueue::JobQueue(std::unique_ptr<Journal> journal, const QueueLimits& limits,
                   std::function<double()> wall_clock)
    : journal_(std::move(journal)), limits_(limits), wall_clock_(std::move(wall_clock)) {}

absl::StatusOr<std::unique_ptr<JobQueue>> JobQueue::Open(std::unique_ptr<Journal> journal,
                                                         const QueueLimits& limits,
                                                         std::function<double()> wall_clock) {
  absl::StatusOr<std::vector<Job>> jobs = journal->Load();
  if (!jobs.ok()) return jobs.status();
  std::unique_ptr<JobQueue> queue(new JobQueue(std::move(journal), limits, std::move(wall_clock)));
  absl::Status status = queue->Restore(*std::move(jobs));
  if (!status.ok()) return status;
  return queue;
}

absl::Status JobQueue::Restore(std::vector<Job> jobs) {
  next_id_ = journal_->next_id();
  // (finished at, id): by how things ended, not by how they began.
  std::vector<std::pair<double, int64_t>> finished;
  for (Job& loaded : jobs) {
    Job& job = jobs_.emplace(loaded.id, std::move(loaded)).first->second;
    by_key_[{job.uid, job.key}] = job.id;
    if (job.state == JobState::kRunning) RestoreRunning(job);
    if (job.state == JobState::kQueued) Enqueue(job);
    if (IsFinished(job.state)) finished.emplace_back(job.finished_at.value_or(0), job.id);
  }
  std::sort(finished.begin(), finished.end());
  for (const auto& [finished_at, id] : finished) {
    const Job& job = jobs_.at(id);
    finished_by_uid_[job.uid].push_back(id);
    scheduler_.Charge(job.uid, job.ran_seconds.value_or(0));
  }
  absl::Status status = Flush().status;
  return absl::IsResourceExhausted(status) ? absl::OkStatus() : status;
}

// The daemon died while this job ran.
void JobQueue::RestoreRunning(Job& job) {
  changed_[job.id].other = true;
  job.leftover_attempt = job.attempt;
  ++job.crashes;
  if (job.crashes <= limits_.crashes) {
    job.state = JobState::kQueued;
    job.started_at.reset();
    return;
  }
  job.state = JobState::kFailed;
  job.finished_at = wall_clock_();
  job.error_code = "aborted";
  job.error = fmt::format(
      "the daemon died {} times while this job ran; it is not tried again: see the daemon's log, "
      "and submit it anew",
      job.crashes);
}

void JobQueue::Enqueue(const Job& job) {
  scheduler_.Add(job.id, job.uid, job.priority);
  for (Waiting* waiting : {&waiting_by_uid_[job.uid], &waiting_}) {
    ++waiting->jobs;
    waiting->bytes += BytesOf(job);
  }
}

void JobQueue::Dequeue(const Job& job) {
  scheduler_.Remove(job.id);
  const auto waiting = waiting_by_uid_.find(job.uid);
  waiting->second.bytes -= BytesOf(job);
  if (--waiting->second.jobs == 0) waiting_by_uid_.erase(waiting);
  waiting_.bytes -= BytesOf(job);
  --waiting_.jobs;
}

std::optional<ErrorReply> JobQueue::CheckRoom(const Job& job) const {
  const auto found = waiting_by_uid_.find(job.uid);
  const Waiting own = found == waiting_by_uid_.end() ? Waiting{} : found->second;
  const int64_t bytes = BytesOf(job);
  if (own.jobs >= limits_.queued_jobs_per_uid || own.bytes + bytes > limits_.queued_bytes_per_uid) {
    return ErrorReply{
        .code = ErrorCode::kQueueFull,
        .message = fmt::format("{} jobs of yours ({} bytes) wait, as many as are allowed; submit "
                               "again when some have run, or cancel some",
                               own.jobs, own.bytes)};
  }
  if (waiting_.jobs >= limits_.queued_jobs || waiting_.bytes + bytes > limits_.queued_bytes) {
    return ErrorReply{
        .code = ErrorCode::kQueueFull,
        .message = fmt::format("{} jobs of all users ({} bytes) wait, as many as are allowed; "
                               "submit again when some have run",
                               waiting_.jobs, waiting_.bytes)};
  }
  return std::nullopt;
}

std::variant<JobQueue::Submitted, ErrorReply> JobQueue::Submit(int64_t uid,
                                                               const SubmitRequest& request,
                                                               std::string spec_json) {
  if (std::optional<ErrorReply> error = CheckSubmission(request, spec_json)) return *error;
  const auto known = by_key_.find({uid, request.key});
  if (known != by_key_.end()) {
    if (jobs_.at(known->second).spec_json == spec_json) {
      return Submitted{.job = known->second, .existed = true};
    }
    return ErrorReply{
        .code = ErrorCode::kKeyConflict,
        .message = fmt::format("key '{}' belongs to job {}, which asks for something else; use "
                               "another key",
                               request.key, known->second)};
  }
  if (std::optional<ErrorReply> refusal = Refusal()) return *refusal;
  Job job;
  job.id = next_id_;
  job.uid = uid;
  job.key = request.key;
  job.priority = request.priority;
  job.timeout_seconds = request.timeout_seconds;
  job.spec_json = std::move(spec_json);
  job.shape = request.shape;
  job.queries_path = request.spec.queries_path;
  job.docs_path = request.spec.docs_path;
  job.output_path = AbsolutePath(request.spec.working_folder, request.spec.output_path);
  job.submitted_at = wall_clock_();
  if (std::optional<ErrorReply> error = CheckRoom(job)) return *error;
  ++next_id_;
  const Job& added = jobs_.emplace(job.id, std::move(job)).first->second;
  by_key_[{uid, added.key}] = added.id;
  Enqueue(added);
  changed_[added.id].inserted = true;
  return Submitted{.job = added.id, .existed = false};
}

const Job* JobQueue::Find(int64_t job) const {
  const auto found = jobs_.find(job);
  return found == jobs_.end() ? nullptr : &found->second;
}

Job* JobQueue::Touch(int64_t job, Change** change) {
  const auto found = jobs_.find(job);
  if (found == jobs_.end()) return nullptr;
  *change = &changed_[job];
  return &found->second;
}

void JobQueue::Start(int64_t job) {
  const Job* const queued = Find(job);
  if (queued == nullptr || queued->state != JobState::kQueued) return;
  Change* change = nullptr;
  Job* const started = Touch(job, &change);
  change->started = true;
  change->attempt_before = started->attempt;
  change->started_at_before = started->started_at;
  Dequeue(*started);
  started->state = JobState::kRunning;
  ++started->attempt;
  started->started_at = wall_clock_();
}

void JobQueue::Finish(int64_t job, const JobOutcome& outcome, double ran_seconds) {
  const Job* const found = Find(job);
  if (found == nullptr || IsFinished(found->state)) return;
  Change* change = nullptr;
  Job* const ended = Touch(job, &change);
  change->started = false;
  change->other = true;
  if (ended->state == JobState::kQueued) {
    Dequeue(*ended);
  } else {
    ended->ran_seconds = ran_seconds;
    scheduler_.Charge(ended->uid, ran_seconds);
  }
  ended->state = IsFinished(outcome.state) ? outcome.state : JobState::kFailed;
  ended->finished_at = wall_clock_();
  ended->error_code = Cut(outcome.error_code, kMostNameBytes);
  ended->error = Cut(outcome.error, kMostErrorBytes);
  ended->device = Cut(outcome.device, kMostNameBytes);
  ended->docs = Cut(outcome.docs, kMostNameBytes);
  if (!outcome.output_path.empty() && outcome.output_path.size() <= kMostSubmittedPathBytes) {
    ended->output_path = outcome.output_path;
  }
  // Half a JSON object is none.
  ended->report_json = outcome.report_json.size() <= kMostReportBytes ? outcome.report_json : "";
  ended->search_seconds = outcome.search_seconds;
  if (outcome.left_temporary) ended->leftover_attempt = ended->attempt;
  finished_by_uid_[ended->uid].push_back(job);
}

void JobQueue::Charge(int64_t uid, double seconds) { scheduler_.Charge(uid, seconds); }

void JobQueue::Requeue(int64_t job, bool left_temporary) {
  const Job* const found = Find(job);
  if (found == nullptr || found->state != JobState::kRunning) return;
  Change* change = nullptr;
  Job* const stopped = Touch(job, &change);
  change->started = false;
  change->other = true;
  stopped->state = JobState::kQueued;
  stopped->started_at.reset();
  if (left_temporary) stopped->leftover_attempt = stopped->attempt;
  Enqueue(*stopped);
}

void JobQueue::ForgetLeftover(int64_t job) {
  const Job* const found = Find(job);
  if (found == nullptr || found->leftover_attempt == 0) return;
  Change* change = nullptr;
  Touch(job, &change)->leftover_attempt = 0;
  change->other = true;
}

void JobQueue::Forget(int64_t job, bool in_journal) {
  const auto found = jobs_.find(job);
  by_key_.erase({found->second.uid, found->second.key});
  jobs_.erase(found);
  changed_.erase(job);
  if (in_journal) deleted_.push_back(job);
}

std::vector<int64_t> JobQueue::Clean(std::optional<int64_t> uid) {
  std::vector<int64_t> cleaned;
  for (auto user = finished_by_uid_.begin(); user != finished_by_uid_.end();) {
    if (!uid || user->first == *uid) {
      std::erase_if(user->second, [&](int64_t job) {
        if (changed_.contains(job) || jobs_.at(job).leftover_attempt != 0) return false;
        Forget(job, /*in_journal=*/true);
        cleaned.push_back(job);
        return true;
      });
    }
    user = user->second.empty() ? finished_by_uid_.erase(user) : std::next(user);
  }
  std::sort(cleaned.begin(), cleaned.end());
  return cleaned;
}

std::vector<int64_t> JobQueue::Expire() {
  std::vector<int64_t> expired;
  const double oldest = wall_clock_() - limits_.finished_seconds;
  for (auto user = finished_by_uid_.begin(); user != finished_by_uid_.end();) {
    std::deque<int64_t>& finished = user->second;
    while (!finished.empty() && !changed_.contains(finished.front()) &&
           (static_cast<int64_t>(finished.size()) > limits_.finished_jobs_per_uid ||
            jobs_.at(finished.front()).finished_at.value_or(0) < oldest)) {
      expired.push_back(finished.front());
      Forget(finished.front(), /*in_journal=*/true);
      finished.pop_front();
    }
    user = finished.empty() ? finished_by_uid_.erase(user) : std::next(user);
  }
  return expired;
}

JobQueue::FlushResult JobQueue::Flush() {
  FlushResult result;
  if (!has_changes()) return result;
  std::vector<JournalChange> changes;
  changes.reserve(deleted_.size() + changed_.size());
  // First what makes keys free, since a new job may have one of them.
  for (const int64_t job : deleted_) changes.emplace_back(DeleteJob{.id = job});
  for (const auto& [id, change] : changed_) {
    const Job& job = jobs_.at(id);
    if (change.inserted) {
      changes.emplace_back(InsertJob{.job = job});
    } else {
      changes.emplace_back(UpdateJob{.job = job});
    }
  }
  result.status = journal_->Write(changes);
  if (result.status.ok()) {
    changed_.clear();
    deleted_.clear();
  } else {
    Undo(result);
  }
  return result;
}

void JobQueue::Undo(FlushResult& result) {
  for (auto changed = changed_.begin(); changed != changed_.end();) {
    const auto& [id, change] = *changed;
    Job& job = jobs_.at(id);
    if (change.inserted) {
      result.undone_submissions.push_back(id);
      if (job.state == JobState::kQueued) Dequeue(job);
      if (IsFinished(job.state)) {
        const auto finished = finished_by_uid_.find(job.uid);
        std::erase(finished->second, id);
        if (finished->second.empty()) finished_by_uid_.erase(finished);
      }
      // Forgetting ends the change as well.
      ++changed;
      Forget(result.undone_submissions.back(), /*in_journal=*/false);
      continue;
    }
    if (change.started) {
      result.undone_starts.push_back(id);
      job.state = JobState::kQueued;
      job.attempt = change.attempt_before;
      job.started_at = change.started_at_before;
      Enqueue(job);
      changed->second.started = false;
    }
    changed = change.other ? std::next(changed) : changed_.erase(changed);
  }
}

std::optional<ErrorReply> JobQueue::Refusal() const {
  switch (journal_->health()) {
    case JournalHealth::kOk:
      return std::nullopt;
    case JournalHealth::kFull:
      return ErrorReply{.code = ErrorCode::kJournalFull,
                        .message = fmt::format("{}: no space left on the disk for new jobs; free "
                                               "some, then submit again",
                                               journal_->path())};
    case JournalHealth::kFailed:
      break;
  }
  return ErrorReply{.code = ErrorCode::kJournalFailed,
                    .message = fmt::format("{}: its disk failed, so no job can be promised; see "
                                           "the daemon's log, then start the daemon again",
                                           journal_->path())};
}

std::string JobQueue::TemporaryTag(int64_t job, int attempt) const {
  return fmt::format("{}-{}-{}", journal_->tag(), job, attempt);
}

}  // namespace tiny_knn
