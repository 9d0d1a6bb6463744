#include "cli/waiting_reason.h"

#include <unistd.h>

#include <string>
#include <vector>

#include "cli/daemon_connection.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

constexpr int64_t kOwn = 1000;

std::string Behind(const std::vector<JobsOfUser>& before) {
  return BehindText(before, kOwn, [](int64_t uid) { return fmt::format("u{}", uid); });
}

TEST(BehindText, SaysWhoseJobsAreBefore) {
  EXPECT_EQ(Behind({}), "");
  EXPECT_EQ(Behind({{1001, 2}}), "behind 2 jobs of u1001");
  EXPECT_EQ(Behind({{1001, 1}}), "behind 1 job of u1001");
  EXPECT_EQ(Behind({{kOwn, 2}}), "behind 2 jobs of yours");
  EXPECT_EQ(Behind({{kOwn, 1}}), "behind 1 job of yours");
  EXPECT_EQ(Behind({{1001, 3}, {kOwn, 1}}), "behind 3 jobs of u1001 and 1 of yours");
  EXPECT_EQ(Behind({{1001, 3}, {0, 2}, {kOwn, 1}}),
            "behind 3 jobs of u1001, 2 of u0 and 1 of yours");
}

TEST(BehindText, NamesAFewOfMany) {
  EXPECT_EQ(Behind({{1, 9}, {2, 8}, {3, 7}, {4, 6}}),
            "behind 9 jobs of u1, 8 of u2, 7 of u3 and 6 of u4");
  EXPECT_EQ(Behind({{1, 9}, {2, 8}, {3, 7}, {4, 6}, {kOwn, 5}}),
            "behind 9 jobs of u1, 8 of u2, 7 of u3 and 11 of 2 others");
}

TEST(WithReason, TheDaemonsOwnReasonComesFirst) {
  UserNames users;
  JobView job;
  job.jobs_before = {{static_cast<int64_t>(geteuid()), 2}};
  EXPECT_EQ(WithReason(job, users).reason, "behind 2 jobs of yours");
  job.reason = "the journal cannot be written";
  EXPECT_EQ(WithReason(job, users).reason, "the journal cannot be written");
  job.reason = "";
  job.state = JobState::kRunning;
  EXPECT_EQ(WithReason(job, users).reason, "");
}

TEST(WithReason, AUserWithoutANameIsANumber) {
  UserNames users;
  JobView job;
  job.jobs_before = {{4294967294, 1}};
  EXPECT_EQ(WithReason(job, users).reason, "behind 1 job of 4294967294");
}

}  // namespace
}  // namespace tiny_knn
