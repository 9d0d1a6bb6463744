#include "daemon/worker/warm_cache.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class FakeDocs : public WarmDocs {
 public:
  FakeDocs(int64_t bytes, bool filled) : bytes_(bytes), filled_(filled) {}
  bool filled() const override { return filled_; }
  int64_t bytes() const override { return bytes_; }

 private:
  const int64_t bytes_;
  const bool filled_;
};

// Files that differ in their inode.
WarmKey Key(uint64_t inode) {
  WarmKey key;
  key.file.inode = inode;
  key.engine = std::string("cpu");
  return key;
}

WarmDocs* Add(WarmCache& cache, const WarmKey& key, int64_t bytes, bool filled = true) {
  return cache.Add(key, fmt::format("d{}", key.file.inode),
                   std::make_unique<FakeDocs>(bytes, filled));
}

std::vector<std::string> Kept(const WarmCache& cache) {
  std::vector<std::string> paths;
  for (const WarmDocsStats& docs : cache.Describe()) paths.push_back(docs.docs_path);
  return paths;
}

TEST(WarmCache, FindsWhatWasAddedUnderTheSameKeyOnly) {
  WarmCache cache;
  const WarmKey key = Key(1);
  EXPECT_EQ(cache.Find(key), nullptr);
  WarmDocs* const docs = Add(cache, key, 10);
  EXPECT_EQ(cache.Find(key), docs);
  std::vector<WarmKey> others(10, key);
  others[0].file.device = 1;
  others[1].file.inode = 2;
  others[2].file.size = 1;
  others[3].file.mtime_ns = 1;
  others[4].file.ctime_ns = 1;
  others[5].input_dtype = DType::kBFloat16;
  others[6].compute_dtype = DType::kFloat16;
  others[7].metric = Metric::kCosine;
  others[8].engine = std::string("cuda:0");
  others[9].engine = std::string("cuda:1");
  for (const WarmKey& other : others) EXPECT_EQ(cache.Find(other), nullptr);
}

TEST(WarmCache, TheSameKeyIsKeptOnce) {
  WarmCache cache;
  Add(cache, Key(1), 10);
  WarmDocs* const second = Add(cache, Key(1), 20);
  EXPECT_EQ(cache.Find(Key(1)), second);
  EXPECT_EQ(cache.bytes(), 20);
}

TEST(WarmCache, LeastRecentlyUsedGoFirstAndNoMoreThanNeeded) {
  WarmCache cache;
  for (uint64_t inode : {1, 2, 3, 4}) Add(cache, Key(inode), 10);
  cache.Find(Key(1));
  EXPECT_TRUE(cache.EvictTo(40, nullptr));
  EXPECT_THAT(Kept(cache), ElementsAre("d1", "d4", "d3", "d2"));
  EXPECT_TRUE(cache.EvictTo(29, nullptr));
  EXPECT_THAT(Kept(cache), ElementsAre("d1", "d4"));
  EXPECT_EQ(cache.bytes(), 20);
}

TEST(WarmCache, WhatIsToBeKeptStaysEvenIfItDoesNotFit) {
  WarmCache cache;
  WarmDocs* const oldest = Add(cache, Key(1), 10);
  Add(cache, Key(2), 10);
  EXPECT_TRUE(cache.EvictTo(10, oldest));
  EXPECT_THAT(Kept(cache), ElementsAre("d1"));
  EXPECT_FALSE(cache.EvictTo(9, oldest));
  EXPECT_THAT(Kept(cache), ElementsAre("d1"));
  EXPECT_FALSE(cache.EvictTo(-5, nullptr)) << "a budget that is overdrawn already";
  EXPECT_THAT(Kept(cache), IsEmpty());
  EXPECT_TRUE(cache.EvictTo(0, nullptr));
}

TEST(WarmCache, UnfilledDocsAreDropped) {
  WarmCache cache;
  Add(cache, Key(1), 10, false);
  Add(cache, Key(2), 10, true);
  EXPECT_EQ(cache.bytes(), 20) << "as they will be";
  cache.DropUnfilled();
  EXPECT_THAT(Kept(cache), ElementsAre("d2"));
}

TEST(WarmCache, WhatAChangedFileWasIsDropped) {
  WarmCache cache;
  WarmKey changed = Key(1);
  changed.file.mtime_ns = 7;
  WarmKey other_metric = changed;
  other_metric.metric = Metric::kL2;
  WarmKey other_device = Key(1);
  other_device.file.device = 9;
  Add(cache, Key(1), 10);
  Add(cache, Key(2), 10);
  Add(cache, other_metric, 10);
  Add(cache, other_device, 10);
  cache.DropOutdated(changed.file, "elsewhere");
  EXPECT_EQ(cache.Find(Key(1)), nullptr);
  EXPECT_NE(cache.Find(Key(2)), nullptr);
  EXPECT_NE(cache.Find(other_metric), nullptr);
  EXPECT_NE(cache.Find(other_device), nullptr);
  cache.DropOutdated(Key(3).file, "d2");
  EXPECT_EQ(cache.Find(Key(2)), nullptr) << "another file has its name now";
  EXPECT_EQ(cache.Describe().size(), 2u);
}

TEST(WarmCache, DropsOneAllOrAnEnginesDocs) {
  WarmCache cache;
  WarmKey cuda = Key(3);
  cuda.engine = std::string("cuda:0");
  WarmDocs* const first = Add(cache, Key(1), 10);
  Add(cache, Key(2), 10);
  Add(cache, cuda, 10);
  cache.Drop(nullptr);
  EXPECT_EQ(cache.bytes(), 30);
  cache.Drop(first);
  EXPECT_THAT(Kept(cache), ElementsAre("d3", "d2"));
  cache.DropOfEngine("cuda:0");
  EXPECT_THAT(Kept(cache), ElementsAre("d2"));
  cache.DropAll();
  EXPECT_THAT(Kept(cache), IsEmpty());
}

TEST(WarmCache, NeverKeepsMoreThanFitAMessage) {
  WarmCache cache;
  for (uint64_t inode = 0; inode < 2 * WarmCache::kMostEntries; ++inode) Add(cache, Key(inode), 1);
  EXPECT_EQ(cache.Describe().size(), WarmCache::kMostEntries);
  EXPECT_EQ(cache.Find(Key(0)), nullptr);
  EXPECT_NE(cache.Find(Key(2 * WarmCache::kMostEntries - 1)), nullptr);
}

TEST(WarmCache, DescribesWhatIsKept) {
  WarmCache cache;
  WarmKey key = Key(5);
  key.compute_dtype = DType::kFloat16;
  key.metric = Metric::kCosine;
  Add(cache, key, 123);
  const std::vector<WarmDocsStats> described = cache.Describe();
  ASSERT_EQ(described.size(), 1u);
  EXPECT_EQ(described[0].docs_path, "d5");
  EXPECT_EQ(described[0].dtype, "float16");
  EXPECT_EQ(described[0].metric, "cosine");
  EXPECT_EQ(described[0].bytes, 123);
}

}  // namespace
}  // namespace tiny_knn
