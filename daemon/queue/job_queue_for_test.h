// A queue on a disk that can fail, for the tests of the queue.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "daemon/queue/failing_vfs_for_test.h"
#include "daemon/queue/job_queue.h"
#include "daemon/queue/journal_for_test.h"
#include "gtest/gtest.h"

namespace tiny_knn {

using Ids = std::vector<int64_t>;

inline SubmitRequest RequestOf(std::string key, int priority = 0) {
  SubmitRequest request;
  request.key = std::move(key);
  request.priority = priority;
  request.spec.queries_path = "q.npy";
  request.spec.docs_path = "d.npy";
  request.spec.output_path = "/tmp/out.pkl";
  request.shape = {.num_queries = 10, .num_docs = 20, .dim = 3, .k = 2, .docs_bytes = 240};
  return request;
}

class JobQueueTest : public testing::Test {
 protected:
  JobQueueTest() : folder_(PrivateFolder("state")) { Reopen(); }

  // As after the end of the daemon: what was not flushed is gone.
  void Reopen() {
    queue_.reset();
    absl::StatusOr<std::unique_ptr<Journal>> journal = Journal::Open(folder_);
    ASSERT_TRUE(journal.ok()) << journal.status();
    absl::StatusOr<std::unique_ptr<JobQueue>> queue =
        JobQueue::Open(*std::move(journal), limits_, [this] { return now_; });
    ASSERT_TRUE(queue.ok()) << queue.status();
    queue_ = *std::move(queue);
  }
  int64_t Submitted(int64_t uid, const SubmitRequest& request, const std::string& spec = "{}") {
    const auto answer = queue_->Submit(uid, request, spec);
    const auto* submitted = std::get_if<JobQueue::Submitted>(&answer);
    if (submitted == nullptr) {
      ADD_FAILURE() << std::get<ErrorReply>(answer).message;
      return -1;
    }
    EXPECT_FALSE(submitted->existed);
    return submitted->job;
  }
  ErrorReply Refused(int64_t uid, const SubmitRequest& request, const std::string& spec = "{}") {
    const auto answer = queue_->Submit(uid, request, spec);
    const auto* error = std::get_if<ErrorReply>(&answer);
    EXPECT_NE(error, nullptr);
    return error == nullptr ? ErrorReply{} : *error;
  }
  int64_t SubmittedAndFlushed(int64_t uid, const std::string& key) {
    const int64_t job = Submitted(uid, RequestOf(key));
    EXPECT_TRUE(queue_->Flush().status.ok());
    return job;
  }
  int64_t Done(int64_t uid, const std::string& key) {
    const int64_t job = SubmittedAndFlushed(uid, key);
    queue_->Start(job);
    queue_->Finish(job, JobOutcome{}, 1);
    EXPECT_TRUE(queue_->Flush().status.ok());
    return job;
  }
  JobState StateOf(int64_t job) const { return queue_->Find(job)->state; }

  // First: outlives the journal.
  FailingVfs vfs_;
  const std::string folder_;
  QueueLimits limits_;
  double now_ = 1.75e9;
  std::unique_ptr<JobQueue> queue_;
};

}  // namespace tiny_knn
