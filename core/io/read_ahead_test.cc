#include "core/io/read_ahead.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::ElementsAre;
using Range = std::pair<int64_t, int64_t>;

// What a thread asked for, in order.
class Asked {
 public:
  void Add(int64_t begin, int64_t end) {
    const std::lock_guard lock(mutex_);
    ranges_.emplace_back(begin, end);
    changed_.notify_all();
  }
  // Everything, when it is `count` ranges and did not become more in a while.
  std::vector<Range> After(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(20), [&] { return ranges_.size() >= count; });
    changed_.wait_for(lock, std::chrono::milliseconds(20), [&] { return ranges_.size() > count; });
    return ranges_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Range> ranges_;
};

ReadAhead::Options Options(Asked& asked) {
  return {.end = 95, .window = 30, .step = 10, .ask = [&asked](int64_t begin, int64_t end) {
            asked.Add(begin, end);
          }};
}

TEST(ReadAheadTest, AsksForAWindowThenKeepsAheadOfTheReader) {
  Asked asked;
  ReadAhead ahead(Options(asked));
  ahead.Start();
  EXPECT_THAT(asked.After(3), ElementsAre(Range(0, 10), Range(10, 20), Range(20, 30)));
  ahead.ReachedTo(9);  // less than a step
  ahead.ReachedTo(5);  // another thread, behind
  EXPECT_EQ(asked.After(3).size(), 3u);
  ahead.ReachedTo(12);
  EXPECT_EQ(asked.After(4).back(), Range(30, 40));
  ahead.ReachedTo(80);  // past all that was asked for
  EXPECT_EQ(asked.After(6)[4], Range(80, 90));
  EXPECT_EQ(asked.After(6)[5], Range(90, 95));
  ahead.ReachedTo(95);
  EXPECT_EQ(asked.After(6).size(), 6u);
}

TEST(ReadAheadTest, StartsWhereTheReaderIs) {
  Asked asked;
  ReadAhead ahead(Options(asked));
  ahead.SeekTo(20);
  ahead.ReachedTo(42);
  EXPECT_TRUE(asked.After(0).empty()) << "it was not started";
  ahead.Start();
  EXPECT_EQ(asked.After(3).front(), Range(42, 52));
}

TEST(ReadAheadTest, ASecondPassStartsAgainAndTheNextRangeGoesOn) {
  Asked asked;
  ReadAhead ahead(Options(asked));
  ahead.Start();
  asked.After(3);
  ahead.ReachedTo(20);
  EXPECT_EQ(asked.After(5).size(), 5u);
  ahead.SeekTo(20);  // the next range of the same pass
  EXPECT_EQ(asked.After(5).size(), 5u);
  ahead.SeekTo(0);
  EXPECT_EQ(asked.After(8)[5], Range(0, 10));
  EXPECT_EQ(asked.After(8)[7], Range(20, 30));
}

TEST(ReadAheadTest, EndsWhileItWaitsWhileItAsksAndWithoutHavingStarted) {
  Asked asked;
  { ReadAhead never(Options(asked)); }
  {
    ReadAhead waiting(Options(asked));
    waiting.Start();
    asked.After(3);
  }
  for (int i = 0; i < 100; ++i) {
    ReadAhead asking(Options(asked));
    asking.Start();
  }
}

}  // namespace
}  // namespace tiny_knn
