#include "daemon/supervisor/user_backoff.h"

#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using std::chrono::milliseconds;

constexpr UserBackoff::Time kNow{std::chrono::hours(1000)};

TEST(UserBackoffTest, FromTheSecondDeathOnEachOneDoublesTheWaitUpToTheLongest) {
  UserBackoff backoff(milliseconds(100), milliseconds(350));
  EXPECT_TRUE(backoff.MayStart(5, kNow));
  backoff.OnDeath(5, kNow);
  EXPECT_TRUE(backoff.MayStart(5, kNow));
  EXPECT_EQ(backoff.NextEnd(kNow), std::nullopt);
  for (const int wait : {100, 200, 350, 350}) {
    backoff.OnDeath(5, kNow);
    EXPECT_FALSE(backoff.MayStart(5, kNow + milliseconds(wait - 1)));
    EXPECT_TRUE(backoff.MayStart(5, kNow + milliseconds(wait)));
    EXPECT_EQ(backoff.NextEnd(kNow), kNow + milliseconds(wait));
  }
  for (int i = 0; i < 100; ++i) backoff.OnDeath(5, kNow);
  EXPECT_TRUE(backoff.MayStart(5, kNow + milliseconds(350)));
}

TEST(UserBackoffTest, OneUsersDeathsAreNotAnothers) {
  UserBackoff backoff(milliseconds(100), milliseconds(350));
  for (int i = 0; i < 3; ++i) backoff.OnDeath(5, kNow);
  EXPECT_TRUE(backoff.MayStart(9, kNow));
  backoff.OnDeath(9, kNow);
  EXPECT_TRUE(backoff.MayStart(9, kNow));
  backoff.OnDeath(9, kNow);
  EXPECT_EQ(backoff.NextEnd(kNow), kNow + milliseconds(100));
  EXPECT_EQ(backoff.NextEnd(kNow + milliseconds(100)), kNow + milliseconds(200));
}

TEST(UserBackoffTest, AJobThatEndsWellEndsTheWait) {
  UserBackoff backoff(milliseconds(100), milliseconds(350));
  for (int i = 0; i < 3; ++i) backoff.OnDeath(5, kNow);
  backoff.OnSuccess(5);
  EXPECT_TRUE(backoff.MayStart(5, kNow));
  backoff.OnDeath(5, kNow);
  EXPECT_TRUE(backoff.MayStart(5, kNow)) << "the first again";
}

TEST(UserBackoffTest, ManyUsersCostBoundedMemoryAndThoseWhoWaitLongestStay) {
  UserBackoff backoff(milliseconds(100), std::chrono::hours(1));
  for (int i = 0; i < 5; ++i) backoff.OnDeath(-7, kNow);
  for (int64_t uid = 0; uid < 3 * static_cast<int64_t>(UserBackoff::kMostUsers); ++uid) {
    backoff.OnDeath(uid, kNow);
  }
  EXPECT_FALSE(backoff.MayStart(-7, kNow));
  // Those who were forgotten begin anew: a second death that counts as the first.
  backoff.OnDeath(0, kNow);
  EXPECT_TRUE(backoff.MayStart(0, kNow));
}

}  // namespace
}  // namespace tiny_knn
