// Which docs a runner keeps, of jobs that want a part of them or go through them in parts.
#include <optional>
#include <string>

#include "daemon/worker/files_for_test.h"
#include "daemon/worker/warm_runner_for_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::Contains;

TEST_F(WarmRunnerTest, ARangeOfTheDocsIsKeptByItself) {
  run_.spec.docs_range = DocsRange{100, 300};
  EXPECT_EQ(RunRight().docs, "cold");
  EXPECT_EQ(RunRight().docs, "warm");
  run_.spec.docs_range = DocsRange{200, 400};
  EXPECT_EQ(RunRight().docs, "cold") << "as many other docs";
  run_.spec.docs_range = DocsRange{200, std::nullopt};
  EXPECT_EQ(RunRight().docs, "warm") << "the same docs";
  run_.spec.docs_range = std::nullopt;
  EXPECT_EQ(RunRight().docs, "cold");
  EXPECT_EQ(RunRight().warm_docs.size(), 3u);
  run_.spec.docs_range = DocsRange{100, 300};
  run_.spec.queries_path = std::string("d.npy");
  run_.spec.exclude_self = true;
  EXPECT_EQ(RunRight().docs, "warm");
  WriteNpy(folder_ + "/d.npy", 400, RandomValues(400 * 8, 9));
  const WorkerFinished changed = RunRight();
  EXPECT_EQ(changed.docs, "cold");
  EXPECT_EQ(changed.warm_docs.size(), 1u);
}

TEST_F(WarmRunnerTest, ASearchWithACheckpointNeitherUsesDocsNorKeepsThem) {
  const std::string line =
      "docs are      cold (a search with a checkpoint goes through them chunk by chunk)";
  run_.spec.checkpoint_path = std::string("c.checkpoint");
  EXPECT_EQ(RunRight().docs, "cold");
  EXPECT_THAT(listener_.lines, Contains(line));
  run_.spec.checkpoint_path.clear();
  EXPECT_EQ(RunRight().docs, "cold");
  EXPECT_EQ(RunRight().docs, "warm");
  run_.spec.checkpoint_path = std::string("c.checkpoint");
  EXPECT_EQ(RunRight().docs, "cold");
  run_.spec.checkpoint_path.clear();
  EXPECT_EQ(RunRight().docs, "warm");
}

}  // namespace
}  // namespace tiny_knn
