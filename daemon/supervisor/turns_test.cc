#include "daemon/supervisor/turns.h"

#include <memory>
#include <string>
#include <vector>

#include "daemon/supervisor/connection_for_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::ElementsAre;

class TurnsTest : public testing::Test {
 protected:
  void Add(uid_t user, const std::string& name, const std::shared_ptr<Connection>& connection) {
    turns_.Add(user, connection, [this, name] { answered_.push_back(name); });
  }
  void Add(uid_t user, const std::string& name) { Add(user, name, SomeConnection()); }
  bool TakeOne() {
    const std::optional<Turns::Answer> answer = turns_.Next();
    if (answer) (*answer)();
    return answer.has_value();
  }
  void TakeAll() {
    while (TakeOne()) {
    }
  }

  Turns turns_;
  std::vector<std::string> answered_;
};

TEST_F(TurnsTest, NobodyWaitsInTheBeginningNorInTheEnd) {
  EXPECT_FALSE(TakeOne());
  Add(1000, "a");
  EXPECT_TRUE(TakeOne());
  EXPECT_FALSE(TakeOne());
}

TEST_F(TurnsTest, AUserWithOneRequestWaitsForOneOfEachOther) {
  for (const char* name : {"a1", "a2", "a3", "a4"}) Add(1000, name);
  ASSERT_TRUE(TakeOne());
  Add(1002, "c1");
  Add(1001, "b1");
  Add(1001, "b2");
  TakeAll();
  EXPECT_THAT(answered_, ElementsAre("a1", "b1", "c1", "a2", "b2", "a3", "a4"));
}

TEST_F(TurnsTest, WhoComesBackAtOnceWaitsForTheOthers) {
  Add(1000, "a1");
  Add(1001, "b1");
  ASSERT_TRUE(TakeOne());
  Add(1000, "a2");
  Add(999, "z1");
  TakeAll();
  EXPECT_THAT(answered_, ElementsAre("a1", "b1", "z1", "a2"));
}

TEST_F(TurnsTest, RequestsOfAConnectionThatIsGoneAreNotAnsweredNorHeld) {
  const std::shared_ptr<Connection> gone = SomeConnection();
  Add(1000, "a1", gone);
  Add(1000, "a2");
  Add(1000, "a3", gone);
  turns_.Forget(1001, gone);
  EXPECT_EQ(gone.use_count(), 3);
  turns_.Forget(1000, gone);
  EXPECT_EQ(gone.use_count(), 1);
  TakeAll();
  EXPECT_THAT(answered_, ElementsAre("a2"));
  turns_.Forget(1000, gone);
}

}  // namespace
}  // namespace tiny_knn
