#include "core/cpu/thread_pool.h"

#include <atomic>
#include <cfenv>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

TEST(ThreadPoolTest, CallsTheTaskOnceOnEveryThreadAndSeesWhatItWrote) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    ASSERT_EQ(pool.threads(), threads);
    std::vector<int> calls(static_cast<size_t>(threads), 0);
    for (int round = 1; round <= 200; ++round) {
      pool.Run([&](int worker) { ++calls[static_cast<size_t>(worker)]; });
      for (const int count : calls) ASSERT_EQ(count, round);
    }
  }
}

TEST(ThreadPoolTest, ComputesInTheDefaultFloatEnvironmentAndRestoresTheCallers) {
  ThreadPool pool(3);
  ASSERT_EQ(std::fesetround(FE_UPWARD), 0);
  std::atomic<int> upward = 0;
  pool.Run([&](int) {
    if (std::fegetround() != FE_TONEAREST) ++upward;
  });
  EXPECT_EQ(upward, 0);
  EXPECT_EQ(std::fegetround(), FE_UPWARD);
  std::fesetround(FE_TONEAREST);
}

TEST(PartOfTest, CoversTheRangeOnceInOrder) {
  for (const int64_t size : {0, 1, 5, 64, 1000}) {
    for (const int64_t parts : {1, 2, 3, 7, 2000}) {
      for (const int64_t unit : {1, 16}) {
        int64_t next = 0;
        for (int64_t part = 0; part < parts; ++part) {
          const IndexRange range = PartOf(size, part, parts, unit);
          EXPECT_EQ(range.begin, next);
          EXPECT_LE(range.begin, range.end);
          next = range.end;
        }
        EXPECT_EQ(next, size);
      }
    }
  }
}

}  // namespace
}  // namespace tiny_knn
