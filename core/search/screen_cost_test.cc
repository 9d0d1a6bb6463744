#include "core/search/screen_cost.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace tiny_knn {
namespace {

PassShape Pass(int64_t num_queries, int64_t num_docs, int64_t dim, int64_t k) {
  return {.num_queries = num_queries, .num_docs = num_docs, .dim = dim, .k = k};
}

bool PrefersCodes(const PassShape& pass) { return Int8CodesCost(pass) < Float32GemmCost(pass); }

// Counted in searches of Gaussian docs (bench/screen_choice.cc): the model is within a seventh.
TEST(ScreenCostTest, ExpectsAsManyRefinedAsThereAre) {
  struct Counted {
    int64_t num_docs, dim, k, sample_docs, sample_rank, waiting_capacity;
    double refined;
  };
  for (const Counted& counted :
       {Counted{100'000, 768, 1000, 6250, 98, 0, 4273},
        Counted{100'000, 128, 1000, 6250, 98, 0, 2316},
        Counted{100'000, 32, 1000, 6250, 98, 0, 1886}, Counted{20'000, 768, 100, 625, 14, 0, 786},
        Counted{100'000, 768, 100, 3125, 14, 0, 969}, Counted{20'000, 128, 10, 625, 6, 0, 99},
        Counted{100'000, 768, 1000, 6250, 98, 6000, 3258},
        Counted{100'000, 128, 1000, 6250, 98, 6000, 1662},
        Counted{100'000, 768, 100, 3125, 14, 2048, 433},
        Counted{100'000, 768, 10, 3125, 6, 2048, 57}}) {
    PassShape pass = Pass(1024, counted.num_docs, counted.dim, counted.k);
    pass.sample_docs = counted.sample_docs;
    pass.sample_rank = counted.sample_rank;
    pass.waiting_capacity = counted.waiting_capacity;
    EXPECT_NEAR(ExpectedRefined(pass), counted.refined, 0.15 * counted.refined)
        << counted.num_docs << " " << counted.dim << " " << counted.k;
  }
}

TEST(ScreenCostTest, RefinesNoMoreThanThereAreDocs) {
  for (const int64_t docs : {1, 10, 1000, 100'000}) {
    for (const int64_t k : {1, 100, 90'000}) {
      const double refined = ExpectedRefined(Pass(1, docs, 65'536, k));
      EXPECT_GT(refined, 0);
      EXPECT_LE(refined, static_cast<double>(docs) * 1.001);
    }
  }
}

TEST(ScreenCostTest, WhatIsNotLeftOutNeedNotBeRefined) {
  PassShape pass = Pass(1024, 100'000, 768, 1000);
  const double floats = ExpectedRefined(pass);
  pass.docs_are_codes = true;
  const double integer_docs = ExpectedRefined(pass);
  pass.queries_are_codes = true;
  const double integers = ExpectedRefined(pass);
  EXPECT_LT(integer_docs, 0.9 * floats);
  EXPECT_LT(integers, 0.9 * integer_docs);
  EXPECT_GT(integers, 1000);
}

TEST(ScreenCostTest, CodesPayForManyQueriesLongRowsAndFewResults) {
  EXPECT_TRUE(PrefersCodes(Pass(1024, 200'000, 768, 10)));
  EXPECT_FALSE(PrefersCodes(Pass(16, 200'000, 768, 10)));
  EXPECT_FALSE(PrefersCodes(Pass(1024, 200'000, 2, 1000)));
  EXPECT_FALSE(PrefersCodes(Pass(1024, 20'000, 768, 5000)));
  // Where docs are prepared already, for a single query as well: a quarter of the bytes.
  PassShape prepared = Pass(1, 200'000, 768, 10);
  prepared.docs_are_prepared = true;
  EXPECT_TRUE(PrefersCodes(prepared));
}

TEST(ScreenCostTest, BreakEvenIsWhereBothTakeAsLong) {
  for (const bool tiles : {false, true}) {
    for (const int64_t dim : {32, 128, 768, 1536}) {
      const double share = BreakEvenRefinedShare(dim, tiles);
      EXPECT_GT(share, tiles ? 0.003 : 0.01) << dim;
      EXPECT_LT(share, 0.15) << dim;
    }
  }
  EXPECT_LT(BreakEvenRefinedShare(64, false), BreakEvenRefinedShare(768, false));
}

}  // namespace
}  // namespace tiny_knn
