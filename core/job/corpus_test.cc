#include "core/job/corpus.h"

#include <string>
#include <utility>

#include "core/cpu/cpu_engine.h"
#include "core/job/random_matrix_for_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::HasSubstr;

// Counts how often its rows are asked for, and may say that they changed.
class WatchedSource : public RowSource {
 public:
  explicit WatchedSource(const MatrixView& matrix)
      : RowSource("docs", matrix.dtype, matrix.rows, matrix.dim), matrix_(matrix) {}
  absl::StatusOr<MatrixView> Rows(int64_t begin, int64_t end) override {
    rows_read += end - begin;
    return matrix_.Slice(begin, end);
  }
  void Release() override {}
  absl::Status CheckUnchanged() override {
    return changed ? absl::DataLossError("docs: changed") : absl::OkStatus();
  }
  int64_t buffer_bytes_per_row() const override { return 0; }

  int64_t rows_read = 0;
  bool changed = false;

 private:
  MatrixView matrix_;
};

class CorpusTest : public testing::Test {
 protected:
  CorpusTest() : matrix_(5000, 40, 3) {
    auto source = std::make_unique<WatchedSource>(matrix_.View());
    watched_ = source.get();
    corpus_ = *Corpus::Make(std::move(source), {});
  }
  // The search by the corpus and by the oracle.
  absl::StatusOr<SearchReport> Search(int64_t queries, int64_t k, const SearchLimits& limits = {},
                                      bool exclude_self = false) {
    const RandomMatrix matrix(queries, 40, static_cast<unsigned>(queries));
    const auto source = matrix.Source("queries");
    Found found(queries, k);
    auto report =
        corpus_->Search(*source, k, exclude_self, limits, *engine_, nullptr, found.View());
    if (report.ok()) {
      const auto docs = matrix_.Source("docs");
      EXPECT_TRUE(found == Oracle(*source, *docs, {.k = k, .exclude_self = exclude_self}));
    }
    return report;
  }

  RandomMatrix matrix_;
  WatchedSource* watched_;
  std::unique_ptr<Corpus> corpus_;
  std::unique_ptr<Engine> engine_ = MakeCpuEngine();
};

TEST_F(CorpusTest, EverySearchIsExactWhateverIsKept) {
  EXPECT_EQ(corpus_->kept_bytes(), 0);
  for (const int64_t queries : {1, 70, 3}) {
    for (const int64_t k : {1, 4, 300}) {
      ASSERT_TRUE(Search(queries, k).ok());
      ASSERT_TRUE(Search(queries, k, {}, true).ok());
    }
  }
  EXPECT_GT(corpus_->kept_bytes(), 0);
}

TEST_F(CorpusTest, TheSecondSearchReadsFewDocsOrNone) {
  ASSERT_TRUE(Search(2, 3).ok());
  EXPECT_GT(corpus_->kept_bytes(), 0);
  const int64_t cold = watched_->rows_read;
  EXPECT_GE(cold, 5000);
  ASSERT_TRUE(Search(2, 3).ok());
  // Codes are kept on machines that multiply them fast, and survivors then read from the source:
  // one call for all rows, as before. Rows that are kept are read no more.
  EXPECT_LE(watched_->rows_read, 2 * cold);
  const int64_t kept = corpus_->kept_bytes();
  ASSERT_TRUE(Search(2, 3).ok());
  EXPECT_EQ(corpus_->kept_bytes(), kept);
  corpus_->Forget();
  EXPECT_EQ(corpus_->kept_bytes(), 0);
  ASSERT_TRUE(Search(2, 3).ok());
  EXPECT_EQ(corpus_->kept_bytes(), kept);
}

TEST_F(CorpusTest, NothingIsKeptBeyondTheLimit) {
  ASSERT_FALSE(Search(1, 1, {.threads = 1, .memory_limit_bytes = 1000}).ok());
  int64_t least = 0;  // that a search can do with
  for (int64_t limit = 1'000'000; limit <= 12'000'000; limit += 200'000) {
    const auto report = Search(1, 1, {.threads = 1, .memory_limit_bytes = limit});
    if (!report.ok()) continue;
    if (least == 0) least = limit;
    EXPECT_LE(corpus_->kept_bytes(), limit);
  }
  EXPECT_GT(corpus_->kept_bytes(), 0);
  ASSERT_GT(least, 0);
  const auto report = Search(1, 1, {.threads = 1, .memory_limit_bytes = least});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_LT(corpus_->kept_bytes(), 200'000);
}

TEST_F(CorpusTest, AChangeOfTheDocsIsAnErrorAndNothingOfThemIsKept) {
  watched_->changed = true;
  EXPECT_TRUE(absl::IsDataLoss(Search(1, 3).status()));
  EXPECT_EQ(corpus_->kept_bytes(), 0);
  watched_->changed = false;
  EXPECT_TRUE(Search(1, 3).ok());
}

TEST_F(CorpusTest, AnotherEngineOfTheKindGoesOnWithWhatIsKept) {
  ASSERT_TRUE(Search(2, 3).ok());
  const int64_t kept = corpus_->kept_bytes();
  engine_ = MakeCpuEngine();
  ASSERT_TRUE(Search(2, 3).ok());
  EXPECT_EQ(corpus_->kept_bytes(), kept);
}

TEST_F(CorpusTest, DocsThatCannotBeSearchedAreRefusedAtOnce) {
  const auto none =
      Corpus::Make(MakeMemoryRowSource("docs", {nullptr, DType::kFloat32, 0, 4, 16}), {});
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("there are no docs"));
  const auto integers = Corpus::Make(matrix_.Source("docs"), {.compute_dtype = DType::kInt8});
  EXPECT_TRUE(absl::IsInvalidArgument(integers.status()));
}

}  // namespace
}  // namespace tiny_knn
