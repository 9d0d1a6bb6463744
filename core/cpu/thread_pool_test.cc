#include "core/cpu/thread_pool.h"

#include <pthread.h>

#include <atomic>
#include <cfenv>
#include <cstdint>
#include <new>
#include <vector>

#include "absl/status/status.h"
#include "core/cpu/index_range.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

TEST(ThreadPoolTest, CallsTheTaskOnceOnEveryThreadAndSeesWhatItWrote) {
  for (const int threads : {1, 2, 5}) {
    const auto started = ThreadPool::Start(threads);
    ASSERT_TRUE(started.ok()) << started.status();
    ThreadPool& pool = **started;
    ASSERT_EQ(pool.threads(), threads);
    std::vector<int> calls(static_cast<size_t>(threads), 0);
    for (int round = 1; round <= 200; ++round) {
      pool.Run([&](int worker) { ++calls[static_cast<size_t>(worker)]; });
      for (const int count : calls) ASSERT_EQ(count, round);
    }
  }
}

TEST(ThreadPoolTest, ComputesInTheDefaultFloatEnvironmentAndRestoresTheCallers) {
  const auto started = ThreadPool::Start(3);
  ASSERT_TRUE(started.ok()) << started.status();
  ThreadPool& pool = **started;
  ASSERT_EQ(std::fesetround(FE_UPWARD), 0);
  std::atomic<int> upward = 0;
  pool.Run([&](int) {
    if (std::fegetround() != FE_TONEAREST) ++upward;
  });
  EXPECT_EQ(upward, 0);
  EXPECT_EQ(std::fegetround(), FE_UPWARD);
  std::fesetround(FE_TONEAREST);
}

TEST(ThreadPoolTest, ThrowsWhatATaskThrewWhenAllAreDoneAndGoesOn) {
  const auto started = ThreadPool::Start(4);
  ASSERT_TRUE(started.ok()) << started.status();
  for (int thrower = 0; thrower < 4; ++thrower) {
    std::atomic<int> done = 0;
    EXPECT_THROW((*started)->Run([&](int worker) {
      if (worker == thrower) throw std::bad_alloc();
      ++done;
    }),
                 std::bad_alloc);
    EXPECT_EQ(done, 3);
  }
  std::atomic<int> calls = 0;
  (*started)->Run([&](int) { ++calls; });
  EXPECT_EQ(calls, 4);
}

TEST(ThreadPoolTest, SaysWhenTheSystemGivesNoMoreThreads) {
  // No address space holds such a stack.
  pthread_attr_t usual;
  ASSERT_EQ(pthread_getattr_default_np(&usual), 0);
  pthread_attr_t huge;
  ASSERT_EQ(pthread_getattr_default_np(&huge), 0);
  ASSERT_EQ(pthread_attr_setstacksize(&huge, size_t{1} << 48), 0);
  ASSERT_EQ(pthread_setattr_default_np(&huge), 0);
  const auto started = ThreadPool::Start(3);
  pthread_setattr_default_np(&usual);
  EXPECT_EQ(started.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(started.status().message().find("cannot start 3 threads"), absl::string_view::npos);
}

TEST(PartOfTest, CoversTheRangeOnceInOrder) {
  for (const int64_t size : {0, 1, 5, 64, 1000}) {
    for (const int64_t parts : {1, 2, 3, 7, 2000}) {
      int64_t next = 0;
      for (int64_t part = 0; part < parts; ++part) {
        const IndexRange range = PartOf(size, part, parts);
        EXPECT_EQ(range.begin, next);
        EXPECT_GE(range.size(), size / parts);
        EXPECT_LE(range.size(), size / parts + 1);
        next = range.end;
      }
      EXPECT_EQ(next, size);
    }
  }
}

}  // namespace
}  // namespace tiny_knn
