// What of the docs is kept under a limit of the daemon's on them alone.
#include "daemon/worker/warm_runner_for_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST_F(WarmRunnerTest, ALimitOnWarmDocsHoldsHoweverMuchMemoryThereIs) {
  const int64_t warm = PlanAndWarmBytes().second;
  run_.most_warm_bytes = 2 * warm;
  EXPECT_EQ(RunRight().docs, "cold");
  run_.spec.docs_path = std::string("e.npy");
  EXPECT_THAT(Names(RunRight().warm_docs), ElementsAre("e.npy", "d.npy"));
  --run_.most_warm_bytes;
  EXPECT_THAT(Names(RunRight().warm_docs), ElementsAre("e.npy"));
  EXPECT_EQ(RunRight().docs, "warm");
  run_.most_warm_bytes = warm - 1;
  EXPECT_THAT(RunRight().warm_docs, IsEmpty()) << "not even one";
  EXPECT_EQ(RunRight().docs, "cold");
}

TEST_F(WarmRunnerTest, AJobThatKeepsNothingKeepsToALoweredLimitOnWarmDocs) {
  const int64_t warm = PlanAndWarmBytes().second;
  EXPECT_EQ(RunRight().warm_docs.size(), 1u);
  now_ns_ = 0;  // no file has settled
  run_.most_warm_bytes = warm - 1;
  run_.spec.docs_path = std::string("e.npy");
  EXPECT_THAT(RunRight().warm_docs, IsEmpty());
}

}  // namespace
}  // namespace tiny_knn
