#include "core/search/planner.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

ProblemShape Shape(int64_t num_queries, int64_t num_docs, int64_t dim, int64_t k) {
  return {.num_queries = num_queries, .num_docs = num_docs, .dim = dim, .k = k};
}

void ExpectSound(const ProblemShape& shape, const MachineLimits& limits, const SearchPlan& plan) {
  EXPECT_LE(plan.memory.total(), limits.memory_limit_bytes);
  EXPECT_GE(plan.query_batch, 1);
  EXPECT_GE(plan.num_passes * plan.query_batch, shape.num_queries);
  EXPECT_LT((plan.num_passes - 1) * plan.query_batch, shape.num_queries);
  EXPECT_GE(plan.num_chunks * plan.doc_chunk, shape.num_docs);
  EXPECT_LT((plan.num_chunks - 1) * plan.doc_chunk, shape.num_docs);
  EXPECT_LE(plan.doc_block, plan.doc_chunk);
  EXPECT_GT(plan.candidate_capacity, std::min(shape.k + shape.k / 2, shape.num_docs));
  if (plan.num_chunks > 1) {
    EXPECT_EQ(plan.doc_chunk % plan.doc_block, 0);
  }
}

TEST(PlannerTest, StaysWithinTheLimitForEveryShapeAndLimit) {
  int refused = 0;
  for (const int64_t queries : {0, 1, 7, 1000, 1'000'000}) {
    for (const int64_t docs : {1, 1000, 100'000, 1'000'000'000}) {
      for (const int64_t dim : {1, 100, 768, 100'000}) {
        for (const int64_t k : {1, 500, 2000}) {
          for (const int64_t limit : {8L << 20, 64L << 20, kGiB, 64 * kGiB}) {
            const ProblemShape shape = Shape(queries, docs, dim, k);
            const MachineLimits limits{.threads = 2,
                                       .memory_limit_bytes = limit,
                                       .has_int8_dot_products = docs % 10'000 == 0,
                                       .saves_state = k == 500};
            const auto plan = PlanSearch(shape, limits);
            if (plan.ok()) {
              ExpectSound(shape, limits, *plan);
            } else {
              EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument);
              ++refused;
            }
          }
        }
      }
    }
  }
  EXPECT_GT(refused, 0);
}

TEST(PlannerTest, TakesAllQueriesAndDocsAtOnceWhereMemoryIsAmple) {
  const auto plan =
      PlanSearch(Shape(1024, 100'000, 768, 10), {.threads = 2, .memory_limit_bytes = 8 * kGiB});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->num_passes, 1);
  EXPECT_EQ(plan->num_chunks, 1);
  EXPECT_EQ(plan->bytes_read, (1024 + 100'000) * 768 * 4);
}

TEST(PlannerTest, MakesChunksOfSomeSecondsWhereTheStateIsSaved) {
  const MachineLimits limits{.threads = 2, .memory_limit_bytes = 64 * kGiB, .saves_state = true};
  // All docs would fit; a chunk is at most 2^37 multiplications or 2 GiB, and at least 16,384 docs.
  const ProblemShape many = Shape(1024, 10'000'000, 768, 10);
  const auto plan = PlanSearch(many, limits);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ExpectSound(many, limits, *plan);
  EXPECT_LE(plan->doc_chunk * 1024 * 768, int64_t{1} << 37);
  EXPECT_GE(plan->doc_chunk * 1024 * 768, int64_t{1} << 36);
  const auto few = PlanSearch(Shape(1, 10'000'000, 768, 10), limits);
  ASSERT_TRUE(few.ok());
  EXPECT_LE(few->doc_chunk * 768 * 4, int64_t{1} << 31);
  EXPECT_GE(few->doc_chunk * 768 * 4, int64_t{1} << 30);
  EXPECT_GE(PlanSearch(Shape(100'000, 10'000'000, 768, 10), limits)->doc_chunk, 16384 / 2);
  EXPECT_EQ(PlanSearch(Shape(1024, 10'000, 768, 10), limits)->num_chunks, 1);
}

TEST(PlannerTest, MakesChunksOfNoMoreDocsThanLieInPlaceUnlessThatIsFew) {
  ProblemShape shape = Shape(1024, 10'000'000, 100, 10);
  const MachineLimits limits{.threads = 2, .memory_limit_bytes = 64 * kGiB};
  EXPECT_EQ(PlanSearch(shape, limits)->num_chunks, 1);
  shape.most_docs_in_place = 2'000'000;
  const auto limited = PlanSearch(shape, limits);
  ASSERT_TRUE(limited.ok());
  ExpectSound(shape, limits, *limited);
  EXPECT_LE(limited->doc_chunk, 2'000'000);
  EXPECT_GT(limited->doc_chunk, 1'900'000);
  shape.most_docs_in_place = 3;
  const auto few = PlanSearch(shape, limits);
  ASSERT_TRUE(few.ok());
  ExpectSound(shape, limits, *few);
  EXPECT_GT(few->doc_chunk * 400, 240 << 20);
  EXPECT_LE(few->doc_chunk * 400, 256 << 20);
}

TEST(PlannerTest, ReadsPastTheCacheInOnePassOfManyChunks) {
  ProblemShape shape = Shape(1024, 10'000'000, 768, 10);
  shape.doc_dtype = DType::kFloat16;
  shape.docs_are_fetched = true;
  MachineLimits limits{.threads = 2, .memory_limit_bytes = kGiB, .has_int8_dot_products = true};
  EXPECT_TRUE(PlanSearch(shape, limits)->reads_past_cache);
  EXPECT_THAT(DescribePlan(shape, *PlanSearch(shape, limits)),
              testing::HasSubstr("past the page cache unless it holds them"));
  limits.requested_batch_size = 1;
  shape.num_queries = 1;
  EXPECT_TRUE(PlanSearch(shape, limits)->reads_past_cache);
  shape.num_queries = 1024;
  limits = {.threads = 2, .memory_limit_bytes = kGiB, .requested_batch_size = 512};
  EXPECT_FALSE(PlanSearch(shape, limits)->reads_past_cache) << "there is another pass";
  limits = {.threads = 2, .memory_limit_bytes = 32 * kGiB};
  EXPECT_FALSE(PlanSearch(shape, limits)->reads_past_cache) << "there is room";
  shape.docs_are_fetched = false;
  EXPECT_FALSE(PlanSearch(shape, {.threads = 2, .memory_limit_bytes = kGiB})->reads_past_cache);
}

TEST(PlannerTest, HonoursTheRequestedBatchSize) {
  const auto plan =
      PlanSearch(Shape(1000, 100'000, 100, 10),
                 {.threads = 2, .memory_limit_bytes = kGiB, .requested_batch_size = 7});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->query_batch, 7);
  EXPECT_EQ(plan->num_passes, 143);
}

TEST(PlannerTest, SplitsDocsBetweenThreadsWhenQueriesAreFew) {
  const MachineLimits limits{.threads = 8, .memory_limit_bytes = kGiB};
  EXPECT_EQ(PlanSearch(Shape(1, 100'000, 100, 10), limits)->doc_splits, 8);
  EXPECT_EQ(PlanSearch(Shape(1000, 100'000, 100, 10), limits)->doc_splits, 1);
  // What the few-queries kernel takes at once is never divided: every doc is read once.
  const MachineLimits two{.threads = 2, .memory_limit_bytes = kGiB};
  EXPECT_EQ(PlanSearch(Shape(32, 100'000, 100, 10), two)->doc_splits, 2);
  EXPECT_EQ(PlanSearch(Shape(33, 100'000, 100, 10), two)->doc_splits, 1);
}

TEST(PlannerTest, RefusesALimitThatCannotWorkAndNamesOneThatDoes) {
  const ProblemShape shape = Shape(1000, 100'000, 768, 2000);
  const auto plan = PlanSearch(shape, {.threads = 2, .memory_limit_bytes = 1 << 20});
  ASSERT_FALSE(plan.ok());
  const std::string message(plan.status().message());
  EXPECT_THAT(message, testing::HasSubstr("a memory limit of 1.0 MiB is too little"));
  const size_t at = message.rfind("--memory-limit ");
  ASSERT_NE(at, std::string::npos);
  const int64_t enough = std::stoll(message.substr(at + 15)) << 20;
  EXPECT_TRUE(PlanSearch(shape, {.threads = 2, .memory_limit_bytes = enough}).ok());
  EXPECT_FALSE(PlanSearch(shape, {.threads = 2, .memory_limit_bytes = enough - (2 << 20)}).ok());
}

TEST(PlannerTest, CountsTheProgram) {
  const ProblemShape shape = Shape(1000, 10'000'000, 100, 10);
  MachineLimits limits{.threads = 2, .memory_limit_bytes = 64 << 20};
  const auto without = PlanSearch(shape, limits);
  limits.program_bytes = 10 << 20;
  limits.memory_limit_bytes += limits.program_bytes;
  const auto with = PlanSearch(shape, limits);
  ASSERT_TRUE(with.ok() && without.ok());
  EXPECT_EQ(with->doc_chunk, without->doc_chunk);
  EXPECT_EQ(with->memory.total(), without->memory.total() + limits.program_bytes);
  EXPECT_THAT(DescribePlan(shape, *with), testing::HasSubstr(", program 10.0 MiB\n"));
  EXPECT_THAT(DescribePlan(shape, *without), testing::Not(testing::HasSubstr("program")));
  limits.memory_limit_bytes = limits.program_bytes;
  EXPECT_FALSE(PlanSearch(shape, limits).ok());
}

TEST(PlannerTest, LeavesNoMemoryThatWouldHoldAnotherQuery) {
  // All docs fit, the queries do not.
  const ProblemShape shape = Shape(16, 4'000'000, 1, 1'900'000);
  const auto plan = PlanSearch(shape, {.threads = 2, .memory_limit_bytes = 700 << 20});
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_LT(plan->query_batch, shape.num_queries);
  const int64_t per_query =
      (plan->memory.queries + plan->memory.candidates + plan->memory.results) / plan->query_batch;
  EXPECT_GT(plan->memory.total() + per_query, 700 << 20);
}

TEST(PlannerTest, CountsWhatThreadsNeedForLargeK) {
  const auto small =
      PlanSearch(Shape(2, 4'000'000, 1, 10), {.threads = 2, .memory_limit_bytes = kGiB});
  const auto large =
      PlanSearch(Shape(2, 4'000'000, 1, 1'900'000), {.threads = 2, .memory_limit_bytes = kGiB});
  ASSERT_TRUE(small.ok() && large.ok());
  // Two threads, each ranking at least 2 k candidates of 16 bytes, twice.
  EXPECT_GE(large->memory.scratch - small->memory.scratch, int64_t{2} * 2 * 1'900'000 * 16 * 2);
}

TEST(PlannerTest, RefusesWhatNoMachineCouldHoldWithoutOverflow) {
  const int64_t huge = int64_t{1} << 60;
  EXPECT_FALSE(PlanSearch(Shape(1, 1, huge, 1), {.threads = 2, .memory_limit_bytes = kGiB}).ok());
  EXPECT_FALSE(
      PlanSearch(Shape(1, huge, 1, huge), {.threads = 2, .memory_limit_bytes = kGiB}).ok());
  const auto plan =
      PlanSearch(Shape(int64_t{1} << 31, int64_t{1} << 31, 4, 1),
                 {.threads = 2, .memory_limit_bytes = kGiB, .requested_batch_size = 1});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->bytes_read, std::numeric_limits<int64_t>::max());
}

TEST(PlannerTest, DescribesThePlanLineByLine) {
  const ProblemShape shape = Shape(10, 1000, 64, 5);
  const auto plan = PlanSearch(shape, {.threads = 2, .memory_limit_bytes = kGiB});
  ASSERT_TRUE(plan.ok());
  const std::string text = DescribePlan(shape, *plan);
  for (const char* part : {"10 queries x 1000 docs x 64 dims, k=5, metric ip", "float32 GEMM",
                           "batches", "chunks", "bytes read", "memory"}) {
    EXPECT_THAT(text, testing::HasSubstr(part));
  }
}

TEST(PlannerTest, GuessesThresholdsFromASampleOfManyDocsForManyQueries) {
  const MachineLimits limits{.threads = 2, .memory_limit_bytes = 8 * kGiB};
  const auto plan = [&](int64_t queries, int64_t docs, int64_t k) {
    return *PlanSearch(Shape(queries, docs, 768, k), limits);
  };
  // 1 in 32 of 200,000 docs: 62.5 of 2,000 are expected in it, and five deviations are 39.5.
  EXPECT_EQ(plan(1024, 200'000, 2000).sample_docs, 12'500);
  EXPECT_EQ(plan(1024, 200'000, 2000).sample_rank, 173);
  EXPECT_EQ(plan(1024, 1'000'000, 10).sample_docs, 8192);
  EXPECT_LT(plan(1024, 1'000'000, 10).sample_rank, 10);
  EXPECT_EQ(plan(10, 200'000, 2000).sample_docs, 0);
  EXPECT_EQ(plan(1024, 4'000, 10).sample_docs, 0);
  EXPECT_EQ(plan(1024, 200'000, 100'000).sample_docs, 0) << "a guess that says nothing";
}

TEST(PlannerTest, ChoosesCodesWhereTheyPay) {
  const MachineLimits limits{
      .threads = 2, .memory_limit_bytes = 8 * kGiB, .has_int8_dot_products = true};
  const auto screen = [](const ProblemShape& shape, const MachineLimits& with) {
    return PlanSearch(shape, with)->screen;
  };
  EXPECT_EQ(screen(Shape(1024, 200'000, 768, 200), limits), ScreenKind::kInt8Codes);
  EXPECT_EQ(screen(Shape(1024, 200'000, 768, 2000), limits), ScreenKind::kInt8Codes);
  // What is made of docs that are kept pays for few queries, too.
  MachineLimits keeping = limits;
  keeping.keeps_docs = true;
  EXPECT_EQ(screen(Shape(1, 200'000, 768, 10), keeping), ScreenKind::kInt8Codes);
  EXPECT_EQ(screen(Shape(1, 200'000, 768, 2000), keeping), ScreenKind::kInt8Codes);
  EXPECT_EQ(screen(Shape(1024, 20'000, 768, 2000), keeping), ScreenKind::kFloat32Gemm);
  // Few queries, short rows, few docs, most docs in the result, doubles, a machine without them.
  EXPECT_EQ(screen(Shape(16, 200'000, 768, 10), limits), ScreenKind::kFloat32Gemm);
  EXPECT_EQ(screen(Shape(1024, 200'000, 2, 5000), limits), ScreenKind::kFloat32Gemm);
  EXPECT_EQ(screen(Shape(1024, 2000, 768, 10), limits), ScreenKind::kFloat32Gemm);
  EXPECT_EQ(screen(Shape(1024, 20'000, 768, 2000), limits), ScreenKind::kFloat32Gemm);
  EXPECT_EQ(screen(Shape(1024, 200'000, 100'000, 10), limits), ScreenKind::kFloat32Gemm);
  ProblemShape doubles = Shape(1024, 200'000, 768, 10);
  doubles.compute_dtype = DType::kFloat64;
  EXPECT_EQ(screen(doubles, limits), ScreenKind::kFloat32Gemm);
  const MachineLimits without{.threads = 2, .memory_limit_bytes = 8 * kGiB};
  EXPECT_EQ(screen(Shape(1024, 200'000, 768, 10), without), ScreenKind::kFloat32Gemm);
  // So little memory that few queries go into a batch.
  const MachineLimits little{
      .threads = 1, .memory_limit_bytes = 20 << 20, .has_int8_dot_products = true};
  const SearchPlan plan = *PlanSearch(Shape(1024, 200'000, 768, 10'000), little);
  EXPECT_LT(plan.query_batch, 64);
  EXPECT_EQ(plan.screen, ScreenKind::kFloat32Gemm);
}

TEST(PlannerTest, ChoosesASecondDigitWhereProductsAreNearlyFree) {
  MachineLimits limits{.threads = 2,
                       .memory_limit_bytes = 8 * kGiB,
                       .has_int8_dot_products = true,
                       .has_int8_tiles = true};
  const auto screen = [&limits](const ProblemShape& shape) {
    return PlanSearch(shape, limits)->screen;
  };
  EXPECT_EQ(screen(Shape(1024, 200'000, 768, 10)), ScreenKind::kInt8Codes);
  EXPECT_EQ(screen(Shape(1024, 200'000, 768, 2000)), ScreenKind::kInt16Codes);
  EXPECT_EQ(screen(Shape(1024, 20'000, 768, 2000)), ScreenKind::kInt16Codes);
  EXPECT_EQ(screen(Shape(16, 200'000, 768, 10)), ScreenKind::kFloat32Gemm);
  EXPECT_EQ(screen(Shape(1024, 5'000, 768, 1000)), ScreenKind::kInt16Codes);
  // Integers of 8 bits are codes of one digit.
  ProblemShape integers = Shape(1024, 200'000, 768, 2000);
  integers.doc_dtype = DType::kInt8;
  integers.query_dtype = DType::kInt8;
  EXPECT_EQ(screen(integers), ScreenKind::kInt8Codes);
  // Whatever is chosen, codes may get a second digit later, and there is memory for it.
  const SearchPlan one = *PlanSearch(Shape(1024, 200'000, 768, 10), limits);
  limits.screen = ScreenKind::kInt16Codes;
  const SearchPlan two = *PlanSearch(Shape(1024, 200'000, 768, 10), limits);
  EXPECT_EQ(one.memory.queries, two.memory.queries);
  EXPECT_GE(two.memory.doc_blocks, two.doc_block * 2 * 768);
  limits.screen = std::nullopt;
  // Docs that are kept have one digit, for all searches.
  limits.keeps_docs = true;
  EXPECT_EQ(screen(Shape(1024, 200'000, 768, 2000)), ScreenKind::kInt8Codes);
}

TEST(PlannerTest, SurvivorsWaitWhereThatPaysAndThereIsMemory) {
  MachineLimits limits{.threads = 2,
                       .memory_limit_bytes = 8 * kGiB,
                       .has_int8_dot_products = true,
                       .has_int8_tiles = true};
  const SearchPlan few = *PlanSearch(Shape(1024, 200'000, 768, 10), limits);
  ASSERT_EQ(few.screen, ScreenKind::kInt8Codes);
  EXPECT_GE(few.waiting_capacity, 2048);
  // Codes of short rows say so much that hardly more survive than have to be refined at last.
  const SearchPlan short_rows = *PlanSearch(Shape(1024, 200'000, 16, 10), limits);
  ASSERT_EQ(short_rows.screen, ScreenKind::kInt8Codes);
  EXPECT_EQ(short_rows.waiting_capacity, 0);
  limits.memory_limit_bytes = 100 << 20;
  const SearchPlan tight = *PlanSearch(Shape(1024, 200'000, 768, 10), limits);
  ASSERT_EQ(tight.screen, ScreenKind::kInt8Codes);
  EXPECT_EQ(tight.waiting_capacity, 0);
  // Sizes that no memory holds.
  ProblemShape huge = Shape(int64_t{1} << 40, int64_t{1} << 45, 768, int64_t{1} << 44);
  EXPECT_FALSE(PlanSearch(huge, limits).ok());
}

TEST(PlannerTest, SurvivorsOfCodesThatAreKeptWaitAndCount) {
  MachineLimits limits{.threads = 2,
                       .memory_limit_bytes = 8 * kGiB,
                       .has_int8_dot_products = true,
                       .keeps_docs = true};
  const ProblemShape shape = Shape(64, 200'000, 768, 1000);
  const SearchPlan kept = *PlanSearch(shape, limits);
  EXPECT_GE(kept.waiting_capacity, 6000);
  EXPECT_GE(PlanSearch(Shape(64, 200'000, 768, 1), limits)->waiting_capacity, 2048);
  limits.keeps_docs = false;
  const SearchPlan once = *PlanSearch(shape, limits);
  EXPECT_EQ(once.waiting_capacity, 0);
  ASSERT_EQ(once.doc_splits, kept.doc_splits);
  const int64_t lists = 64 * kept.doc_splits;
  EXPECT_GE(kept.memory.candidates - once.memory.candidates, lists * kept.waiting_capacity * 8);
  EXPECT_GE(kept.memory.scratch - once.memory.scratch,
            2 * kept.doc_splits * kept.waiting_capacity * 8);
}

TEST(PlannerTest, FetchedRowsOfABlockStayInCacheAndCount) {
  const MachineLimits limits{
      .threads = 2, .memory_limit_bytes = kGiB, .has_int8_dot_products = true};
  ProblemShape shape = Shape(1024, 200'000, 768, 10);
  const auto mapped = PlanSearch(shape, limits);
  shape.docs_are_fetched = true;
  const auto fetched = PlanSearch(shape, limits);
  ASSERT_TRUE(mapped.ok() && fetched.ok());
  ASSERT_EQ(fetched->screen, ScreenKind::kInt8Codes);
  EXPECT_LE(fetched->doc_block * 768 * 4, 8L << 20);
  EXPECT_LT(fetched->doc_block, mapped->doc_block);
  // The rows in whole huge pages, and the codes.
  EXPECT_GE(fetched->memory.doc_blocks, (8L << 20) + fetched->doc_block * 768);
  ExpectSound(shape, limits, *fetched);
  // Of many threads, each has a cache of its own.
  MachineLimits many = limits;
  many.threads = 64;
  EXPECT_EQ(PlanSearch(shape, many)->doc_block, mapped->doc_block);
}

TEST(PlannerTest, DocsInTheCallersMemoryTakeNothingOfTheLimit) {
  ProblemShape shape = Shape(10, 1'000'000, 768, 10);
  const MachineLimits limits{.threads = 2, .memory_limit_bytes = 64L << 20};
  const auto from_file = PlanSearch(shape, limits);
  shape.docs_in_callers_memory = true;
  const auto from_memory = PlanSearch(shape, limits);
  ASSERT_TRUE(from_file.ok() && from_memory.ok());
  EXPECT_GT(from_file->num_chunks, 1);
  EXPECT_EQ(from_memory->num_chunks, 1);
  ExpectSound(shape, limits, *from_memory);
}

}  // namespace
}  // namespace tiny_knn
