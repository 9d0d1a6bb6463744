#include "daemon/queue/scheduler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <tuple>
#include <vector>

#include "daemon/queue/speed_for_test.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using Order = std::vector<int64_t>;

TEST(SchedulerTest, RunsByPriorityThenInOrderOfSubmission) {
  Scheduler scheduler;
  scheduler.Add(1, 1000, 0);
  scheduler.Add(2, 1000, 5);
  scheduler.Add(3, 1000, -5);
  scheduler.Add(4, 1000, 5);
  EXPECT_EQ(scheduler.Order(), Order({2, 4, 1, 3}));
  EXPECT_EQ(scheduler.Next(), 2);
  // One that is queued again keeps its place.
  scheduler.Remove(2);
  EXPECT_EQ(scheduler.Next(), 4);
  scheduler.Add(2, 1000, 5);
  EXPECT_EQ(scheduler.Next(), 2);
}

TEST(SchedulerTest, PutsUsersWhoUsedLessBeforeOthersOfTheSamePriority) {
  Scheduler scheduler;
  scheduler.Add(1, 1000, 0);
  scheduler.Add(2, 1000, 0);
  scheduler.Add(3, 1001, 0);
  scheduler.Add(4, 1000, 1);
  EXPECT_EQ(scheduler.Order(), Order({4, 1, 2, 3}));
  scheduler.Charge(1000, 60);
  EXPECT_EQ(scheduler.Order(), Order({4, 3, 1, 2}));
  scheduler.Charge(1001, 61);
  EXPECT_EQ(scheduler.Order(), Order({4, 1, 2, 3}));
}

TEST(SchedulerTest, SaysWhoseJobsAreBefore) {
  Scheduler scheduler;
  scheduler.Add(1, 1000, 0);
  scheduler.Add(2, 1001, 0);
  scheduler.Add(3, 1001, 7);
  scheduler.Add(4, 1002, -1);
  scheduler.Add(5, 1001, 0);
  const std::optional<Scheduler::Position> position = scheduler.PositionOf(5);
  ASSERT_TRUE(position);
  EXPECT_EQ(position->jobs_before, 3);
  EXPECT_EQ(position->by_uid, (std::map<int64_t, int64_t>{{1000, 1}, {1001, 2}}));
  EXPECT_EQ(scheduler.PositionOf(3)->jobs_before, 0);
  EXPECT_TRUE(scheduler.PositionOf(3)->by_uid.empty());
  EXPECT_FALSE(scheduler.PositionOf(6));
}

TEST(SchedulerTest, ForgetsUseHalfByHalf) {
  Scheduler scheduler;
  scheduler.Charge(1000, 100);
  scheduler.Add(1, 1000, 0);
  scheduler.Add(2, 1001, 0);
  // One half-life: 1000 has 50 left.
  scheduler.Charge(1002, Scheduler::kHalfLifeSeconds);
  scheduler.Charge(1001, 45);
  EXPECT_EQ(scheduler.Next(), 2);
  scheduler.Charge(1001, 10);
  EXPECT_EQ(scheduler.Next(), 1);
}

TEST(SchedulerTest, IgnoresWhatCannotBeCharged) {
  Scheduler scheduler;
  scheduler.Add(1, 1000, 0);
  scheduler.Add(2, 1001, 0);
  scheduler.Charge(1000, std::nan(""));
  scheduler.Charge(1000, -1);
  scheduler.Charge(1000, 0);
  EXPECT_EQ(scheduler.Next(), 1);
  scheduler.Charge(1000, std::numeric_limits<double>::infinity());
  EXPECT_EQ(scheduler.Next(), 2);
  scheduler.Charge(1001, std::numeric_limits<double>::infinity());
  EXPECT_EQ(scheduler.Next(), 1);  // only the last of them counts
}

TEST(SchedulerTest, RemovesOnlyWhatWaits) {
  Scheduler scheduler;
  EXPECT_FALSE(scheduler.Next());
  scheduler.Remove(1);
  scheduler.Add(1, 1000, 0);
  scheduler.Add(1, 1001, 3);  // replaces
  EXPECT_EQ(scheduler.size(), 1);
  EXPECT_EQ(scheduler.Order(), Order({1}));
  scheduler.Remove(1);
  EXPECT_EQ(scheduler.size(), 0);
  EXPECT_FALSE(scheduler.Next());
}

TEST(SchedulerTest, ForeseesThatUsersTakeTurns) {
  Scheduler scheduler;
  for (int64_t job = 1; job <= 3; ++job) scheduler.Add(job, 1000, 0);
  for (int64_t job = 4; job <= 6; ++job) scheduler.Add(job, 1001, 0);
  scheduler.Add(7, 1002, -1);
  const auto ten = [](int64_t, int64_t) { return 10.0; };
  EXPECT_EQ(scheduler.Order(std::nullopt, ten), Order({1, 4, 2, 5, 3, 6, 7}));
  // One job of 1000 counts as much as three of 1001.
  const auto slow = [](int64_t, int64_t uid) { return uid == 1000 ? 30.0 : 10.1; };
  EXPECT_EQ(scheduler.Order(std::nullopt, slow), Order({1, 4, 5, 6, 2, 3, 7}));
}

TEST(SchedulerTest, ForeseesThatTheRunningJobIsChargedToItsUser) {
  Scheduler scheduler;
  scheduler.Add(1, 1000, 0);
  scheduler.Add(2, 1000, 0);
  scheduler.Add(3, 1001, 0);
  scheduler.Add(4, 1001, 0);
  const auto ten = [](int64_t, int64_t) { return 10.0; };
  EXPECT_EQ(scheduler.Order(Scheduler::Running{1000, 15}, ten), Order({3, 4, 1, 2}));
  // Nobody who waits.
  EXPECT_EQ(scheduler.Order(Scheduler::Running{1002, 15}, ten), Order({1, 3, 2, 4}));
}

TEST(SchedulerTest, ForeseesWhatWillHappenWhateverJobsTake) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
    Scheduler scheduler;
    const int users = 1 + below(6);
    for (int i = 0; i < 10; ++i) scheduler.Charge(1000 + below(users), 1 + below(2000));
    const int jobs = 1 + below(120);
    std::map<int64_t, double> seconds;
    std::map<int64_t, int64_t> uids;
    // In some of the queues jobs of days, after which all that was before is as good as forgotten.
    const int longest = seed % 3 == 0 ? 200'000 : 2000;
    for (int64_t job = 1; job <= jobs; ++job) {
      uids[job] = 1000 + below(users);
      scheduler.Add(job, uids[job], below(3) - 1);
      seconds[job] = 1 + below(longest);
    }
    std::optional<Scheduler::Running> running;
    if (below(2) == 0) running = Scheduler::Running{1000 + below(users), 1.0 + below(3000)};
    std::vector<int64_t> asked;
    const Order foreseen = scheduler.Order(running, [&](int64_t job, int64_t uid) {
      EXPECT_EQ(uid, uids[job]);
      asked.push_back(job);
      return seconds[job];
    });
    EXPECT_EQ(asked, foreseen);
    Order happened;
    if (running) scheduler.Charge(running->uid, running->seconds);
    while (const std::optional<int64_t> next = scheduler.Next()) {
      happened.push_back(*next);
      scheduler.Remove(*next);
      scheduler.Charge(uids[*next], seconds[*next]);
    }
    ASSERT_EQ(foreseen, happened) << "seed " << seed;
  }
}

TEST(SchedulerTest, ForeseesTwentyThousandJobsOfFiftyUsersInNoTime) {
  Scheduler scheduler;
  for (int64_t job = 1; job <= 20000; ++job) scheduler.Add(job, 1000 + job % 50, 0);
  double best = 1;
  for (int i = 0; i < 5; ++i) {
    const double began = CpuSeconds();
    const Order order = scheduler.Order(
        std::nullopt, [](int64_t job, int64_t) { return job % 7 == 0 ? 8.0 : 1.0; });
    ASSERT_EQ(order.size(), 20000u);
    best = std::min(best, CpuSeconds() - began);
  }
  RecordProperty("milliseconds", static_cast<int>(best * 1000));
  if (kSanitized) return;
  EXPECT_LT(best, 0.5);  // a few milliseconds; the rest is for busy machines
}

// The same by brute force.
struct Naive {
  struct Waiting {
    int64_t job;
    int64_t uid;
    int priority;
  };
  std::vector<Waiting> waiting;
  std::map<int64_t, double> used;

  void Charge(int64_t uid, double seconds) {
    const double kept = std::exp2(-seconds / Scheduler::kHalfLifeSeconds);
    for (auto& [user, use] : used) use *= kept;
    used[uid] += seconds;
  }
  Order Sorted() {
    std::sort(waiting.begin(), waiting.end(), [this](const Waiting& a, const Waiting& b) {
      return std::tuple(-a.priority, used[a.uid], a.job) <
             std::tuple(-b.priority, used[b.uid], b.job);
    });
    Order order;
    for (const Waiting& one : waiting) order.push_back(one.job);
    return order;
  }
};

TEST(SchedulerTest, AgreesWithSortingWhateverHappens) {
  for (unsigned seed = 0; seed < 30; ++seed) {
    std::mt19937 random(seed);
    const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
    Scheduler scheduler;
    Naive naive;
    int64_t next_job = 1;
    for (int step = 0; step < 300; ++step) {
      const int what = below(10);
      if (what < 5) {
        const Naive::Waiting added = {next_job++, 1000 + below(4), below(5) - 2};
        scheduler.Add(added.job, added.uid, added.priority);
        naive.waiting.push_back(added);
      } else if (what < 8 && !naive.waiting.empty()) {
        const auto gone = naive.waiting.begin() + below(static_cast<int>(naive.waiting.size()));
        scheduler.Remove(gone->job);
        naive.waiting.erase(gone);
      } else {
        const int64_t uid = 1000 + below(4);
        const double seconds = 1 + below(20000);
        scheduler.Charge(uid, seconds);
        naive.Charge(uid, seconds);
      }
      const Order order = naive.Sorted();
      ASSERT_EQ(scheduler.Order(), order) << "seed " << seed << " step " << step;
      ASSERT_EQ(scheduler.size(), static_cast<int64_t>(order.size()));
      ASSERT_EQ(scheduler.Next(), order.empty() ? std::nullopt : std::optional(order.front()));
      if (order.empty()) continue;
      const auto which = static_cast<size_t>(below(static_cast<int>(order.size())));
      Scheduler::Position expected;
      expected.jobs_before = static_cast<int64_t>(which);
      for (size_t i = 0; i < which; ++i) ++expected.by_uid[naive.waiting[i].uid];
      const std::optional<Scheduler::Position> position = scheduler.PositionOf(order[which]);
      ASSERT_TRUE(position);
      ASSERT_EQ(position->jobs_before, expected.jobs_before);
      ASSERT_EQ(position->by_uid, expected.by_uid);
    }
  }
}

}  // namespace
}  // namespace tiny_knn
