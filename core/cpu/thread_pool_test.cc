#include "core/cpu/thread_pool.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

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
  // A limit on address space leaves no room for stacks, whoever runs this.
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const rlimit limit = {rlim_t{1} << 30, rlim_t{1} << 30};
    setrlimit(RLIMIT_AS, &limit);
    const auto started = ThreadPool::Start(10'000);
    _exit(started.status().code() == absl::StatusCode::kResourceExhausted ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
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
