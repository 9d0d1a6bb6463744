#include "daemon/supervisor/waits.h"

#include <memory>
#include <vector>

#include "daemon/supervisor/connection_for_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<int64_t> Requests(const std::vector<Waits::Wait>& waits) {
  std::vector<int64_t> requests;
  for (const Waits::Wait& wait : waits) requests.push_back(wait.request);
  return requests;
}

TEST(Waits, AreOverWhenTheLastOfTheirJobsIsFinished) {
  Waits waits(100);
  const auto connection = SomeConnection();
  waits.Add({connection, 1000, 7, {1, 2, 3}}, {1, 3});
  waits.Add({connection, 1000, 8, {3}}, {3});
  EXPECT_THAT(waits.Finish(2), IsEmpty());
  EXPECT_THAT(Requests(waits.Finish(1)), IsEmpty());
  const std::vector<Waits::Wait> over = waits.Finish(3);
  EXPECT_THAT(Requests(over), ElementsAre(7, 8));
  EXPECT_THAT(over[0].jobs, ElementsAre(1, 2, 3));
  EXPECT_EQ(over[0].connection, connection);
  EXPECT_THAT(waits.Finish(3), IsEmpty());
}

TEST(Waits, OneThatNamesAJobTwiceIsOverOnce) {
  Waits waits(100);
  waits.Add({SomeConnection(), 1000, 7, {1, 1}}, {1, 1});
  EXPECT_THAT(Requests(waits.Finish(1)), ElementsAre(7));
  EXPECT_TRUE(waits.HasRoom(1000, 100));
}

TEST(Waits, AUsersIdsAreCountedOverAllConnections) {
  Waits waits(5);
  const auto one = SomeConnection();
  const auto other = SomeConnection();
  waits.Add({one, 1000, 1, {1, 2}}, {2});
  waits.Add({other, 1000, 2, {3, 4}}, {3, 4});
  EXPECT_TRUE(waits.HasRoom(1000, 1));
  EXPECT_FALSE(waits.HasRoom(1000, 2));
  EXPECT_TRUE(waits.HasRoom(1001, 5));
  // Those that are over, and those of connections that are gone, count no more.
  waits.Finish(2);
  EXPECT_TRUE(waits.HasRoom(1000, 3));
  EXPECT_FALSE(waits.HasRoom(1000, 4));
  waits.Forget(other);
  EXPECT_TRUE(waits.HasRoom(1000, 5));
  EXPECT_FALSE(waits.HasRoom(1000, 6));
}

TEST(Waits, OfAConnectionThatIsGoneAreNotAnswered) {
  Waits waits(100);
  const auto gone = SomeConnection();
  const auto stays = SomeConnection();
  waits.Add({gone, 1000, 1, {1, 2}}, {1, 2});
  waits.Add({stays, 1000, 2, {1}}, {1});
  waits.Add({gone, 1000, 3, {1}}, {1});
  waits.Forget(gone);
  waits.Forget(SomeConnection());
  EXPECT_EQ(gone.use_count(), 1);
  EXPECT_THAT(Requests(waits.Finish(1)), ElementsAre(2));
  EXPECT_THAT(waits.Finish(2), IsEmpty());
  EXPECT_EQ(stays.use_count(), 1);
}

}  // namespace
}  // namespace tiny_knn
