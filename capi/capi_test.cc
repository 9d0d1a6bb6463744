// The C interface as its users meet it. What searches find is proved elsewhere, so it is compared
// with simple cases here.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "capi/jobs_for_test.h"
#include "capi/tiny_knn.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace {

using testing::ElementsAre;
using testing::HasSubstr;

template <typename T, void (*close)(T*)>
struct Closer {
  void operator()(T* object) const { close(object); }
};
template <typename T, void (*close)(T*)>
using Owned = std::unique_ptr<T, Closer<T, close>>;
using Engine = Owned<tknn_engine, tknn_engine_close>;
using Rows = Owned<tknn_rows, tknn_rows_close>;
using Corpus = Owned<tknn_corpus, tknn_corpus_destroy>;
using Control = Owned<tknn_control, tknn_control_destroy>;

Engine OpenCpu() {
  tknn_engine* engine = nullptr;
  EXPECT_EQ(tknn_engine_open("cpu", 0, &engine), TKNN_OK) << tknn_last_error();
  return Engine(engine);
}

// Row i of `values` [rows, dim].
Rows InMemory(const char* name, const std::vector<float>& values, int64_t dim) {
  const tknn_matrix matrix = {values.data(),
                              static_cast<int64_t>(values.size()) / dim,
                              dim,
                              dim * int64_t{sizeof(float)},
                              sizeof(float),
                              TKNN_DTYPE_FLOAT32,
                              0};
  tknn_rows* rows = nullptr;
  EXPECT_EQ(tknn_rows_from_memory(name, &matrix, &rows), TKNN_OK) << tknn_last_error();
  return Rows(rows);
}

TEST(CapiTest, EveryDTypeOfMemoryIsReadForWhatItIs) {
  const Engine engine = OpenCpu();
  const auto nearest = [&](const void* data, tknn_dtype dtype, int64_t item, bool swap) {
    const tknn_matrix matrix = {data, 3, 1, item, item, dtype, swap ? 1 : 0};
    tknn_rows* rows = nullptr;
    EXPECT_EQ(tknn_rows_from_memory("docs", &matrix, &rows), TKNN_OK) << tknn_last_error();
    const Rows docs(rows);
    const std::vector<float> one = {1};
    const Rows query = InMemory("query", one, 1);
    const tknn_search_params params = Params(3);
    std::vector<int64_t> indices(3);
    std::vector<float> scores(3);
    EXPECT_EQ(tknn_search(engine.get(), query.get(), docs.get(), &params, nullptr, indices.data(),
                          scores.data(), nullptr),
              TKNN_OK)
        << tknn_last_error();
    EXPECT_THAT(indices, ElementsAre(1, 2, 0)) << dtype;
    return scores;
  };
  const int8_t i8[] = {0, 2, 1};
  const uint8_t u8[] = {0, 2, 1};
  const int16_t i16[] = {0, 2, 1}, i16_swapped[] = {0, 0x200, 0x100};
  const int32_t i32[] = {0, 2, 1};
  const int64_t i64[] = {0, 2, 1};
  const uint16_t f16[] = {0, 0x4000, 0x3C00}, bf16[] = {0, 0x4000, 0x3F80};
  const float f32[] = {0, 2, 1};
  const double f64[] = {0, 2, 1};
  for (const auto& scores :
       {nearest(i8, TKNN_DTYPE_INT8, 1, false), nearest(u8, TKNN_DTYPE_UINT8, 1, false),
        nearest(i16, TKNN_DTYPE_INT16, 2, false), nearest(i16_swapped, TKNN_DTYPE_INT16, 2, true),
        nearest(i32, TKNN_DTYPE_INT32, 4, false), nearest(i64, TKNN_DTYPE_INT64, 8, false),
        nearest(f16, TKNN_DTYPE_FLOAT16, 2, false), nearest(bf16, TKNN_DTYPE_BFLOAT16, 2, false),
        nearest(f32, TKNN_DTYPE_FLOAT32, 4, false), nearest(f64, TKNN_DTYPE_FLOAT64, 8, false)}) {
    EXPECT_THAT(scores, ElementsAre(2.0F, 1.0F, 0.0F));
  }
}

TEST(CapiTest, Float64SearchesGiveDoubles) {
  const Engine engine = OpenCpu();
  const std::vector<float> values = Count(5);
  const Rows queries = InMemory("queries", values, 1), docs = InMemory("docs", values, 1);
  tknn_search_params params = Params(2, TKNN_METRIC_L2);
  params.compute_dtype = TKNN_DTYPE_FLOAT64;
  params.exclude_self = 1;
  std::vector<int64_t> indices(10);
  std::vector<double> scores(10);
  ASSERT_EQ(tknn_search(engine.get(), queries.get(), docs.get(), &params, nullptr, indices.data(),
                        scores.data(), nullptr),
            TKNN_OK)
      << tknn_last_error();
  EXPECT_THAT(indices, ElementsAre(1, 2, 0, 2, 1, 3, 2, 4, 3, 2));
  EXPECT_THAT(scores, ElementsAre(-1, -4, -1, -1, -1, -1, -1, -1, -1, -4));
}

TEST(CapiTest, TheReportSaysWhatWasNoticed) {
  const Engine engine = OpenCpu();
  const std::vector<float> query_values = {1, INFINITY}, doc_values = {1, 1, 1e9F, NAN};
  const Rows queries = InMemory("queries", query_values, 1), docs = InMemory("docs", doc_values, 1);
  tknn_search_params params = Params(2);
  params.compute_dtype = TKNN_DTYPE_FLOAT16;
  std::vector<int64_t> indices(4);
  std::vector<float> scores(4);
  tknn_report report;
  ASSERT_EQ(tknn_search(engine.get(), queries.get(), docs.get(), &params, nullptr, indices.data(),
                        scores.data(), &report),
            TKNN_OK);
  EXPECT_EQ(report.nonfinite_query_rows, 1);
  EXPECT_EQ(report.nonfinite_doc_rows, 2);
  EXPECT_EQ(report.infs_made_in_queries, 0);
  EXPECT_EQ(report.infs_made_in_docs, 1);
  EXPECT_EQ(report.queries_with_tie_at_k, 2);
}

TEST(CapiTest, NullsAndWrongValuesAreErrorsWithAMessage) {
  const Engine engine = OpenCpu();
  const std::vector<float> values = Count(5);
  const Rows queries = InMemory("queries", values, 1), docs = InMemory("docs", values, 1);
  std::vector<int64_t> indices(5);
  std::vector<float> scores(5);
  const auto error = [&](tknn_engine* e, tknn_rows* q, tknn_rows* d,
                         const tknn_search_params* params, int64_t* i) {
    EXPECT_EQ(tknn_search(e, q, d, params, nullptr, i, scores.data(), nullptr),
              TKNN_INVALID_ARGUMENT);
    return std::string(tknn_last_error());
  };
  tknn_search_params params = Params(1);
  EXPECT_EQ(error(nullptr, queries.get(), docs.get(), &params, indices.data()), "engine is NULL");
  EXPECT_EQ(error(engine.get(), nullptr, docs.get(), &params, indices.data()), "queries is NULL");
  EXPECT_EQ(error(engine.get(), queries.get(), nullptr, &params, indices.data()), "docs is NULL");
  EXPECT_EQ(error(engine.get(), queries.get(), docs.get(), nullptr, indices.data()),
            "params is NULL");
  EXPECT_EQ(error(engine.get(), queries.get(), docs.get(), &params, nullptr), "indices is NULL");
  EXPECT_THAT(error(engine.get(), docs.get(), docs.get(), &params, indices.data()),
              HasSubstr("same object"));
  params.metric = 7;
  EXPECT_THAT(error(engine.get(), queries.get(), docs.get(), &params, indices.data()),
              HasSubstr("metric 7"));
  params = Params(1);
  params.compute_dtype = TKNN_DTYPE_BOOL;
  EXPECT_THAT(error(engine.get(), queries.get(), docs.get(), &params, indices.data()),
              HasSubstr("bool"));
  params = Params(1);
  params.threads = -1;
  EXPECT_THAT(error(engine.get(), queries.get(), docs.get(), &params, indices.data()),
              HasSubstr("threads=-1"));
  params = Params(1);
  params.memory_limit_bytes = -1;
  EXPECT_THAT(error(engine.get(), queries.get(), docs.get(), &params, indices.data()),
              HasSubstr("memory_limit_bytes=-1"));

  const tknn_matrix wrong_shape = {values.data(), -1, 1, 4, 4, TKNN_DTYPE_FLOAT32, 0};
  const tknn_matrix too_large = {values.data(), INT64_MAX, 9, 4, 4, TKNN_DTYPE_FLOAT32, 0};
  const tknn_matrix no_data = {nullptr, 1, 1, 4, 4, TKNN_DTYPE_FLOAT32, 0};
  const tknn_matrix no_dtype = {values.data(), 1, 1, 4, 4, 99, 0};
  for (const tknn_matrix* matrix :
       {&wrong_shape, &too_large, &no_data, &no_dtype, static_cast<const tknn_matrix*>(nullptr)}) {
    tknn_rows* rows = queries.get();
    EXPECT_EQ(tknn_rows_from_memory("m", matrix, &rows), TKNN_INVALID_ARGUMENT);
    EXPECT_EQ(rows, nullptr);
    EXPECT_STRNE(tknn_last_error(), "");
  }
  tknn_engine* none = engine.get();
  EXPECT_EQ(tknn_engine_open("gpu", 0, &none), TKNN_INVALID_ARGUMENT);
  EXPECT_EQ(none, nullptr);
  EXPECT_EQ(tknn_engine_open("cuda:999", 0, &none), TKNN_UNAVAILABLE);
  EXPECT_EQ(tknn_engine_open("cpu", 0, nullptr), TKNN_INVALID_ARGUMENT);
}

TEST(CapiTest, ClosingNothingIsFine) {
  tknn_engine_close(nullptr);
  tknn_rows_close(nullptr);
  tknn_corpus_destroy(nullptr);
  tknn_control_destroy(nullptr);
  tknn_control_cancel(nullptr);
  tknn_job_destroy(nullptr);
  tknn_result_destroy(nullptr);
}

TEST(CapiTest, MessagesAreOfTheirThread) {
  tknn_rows* rows = nullptr;
  EXPECT_EQ(tknn_rows_open("/nowhere/q.npy", TKNN_DTYPE_AS_STORED, &rows), TKNN_NOT_FOUND);
  EXPECT_EQ(tknn_last_errno(), ENOENT);
  const std::string mine = tknn_last_error();
  EXPECT_THAT(mine, HasSubstr("/nowhere/q.npy"));
  std::thread([] {
    EXPECT_STREQ(tknn_last_error(), "");
    EXPECT_EQ(tknn_last_errno(), 0);
    tknn_engine* engine = nullptr;
    EXPECT_EQ(tknn_engine_open("x", 0, &engine), TKNN_INVALID_ARGUMENT);
  }).join();
  EXPECT_EQ(tknn_last_error(), mine);
  OpenCpu();
  EXPECT_EQ(tknn_last_error(), mine) << "a call that went well forgot it";
}

TEST(CapiTest, ACorpusTakesItsDocsOverAndKeepsWhatItMadeOfThem) {
  const Engine engine = OpenCpu();
  const std::vector<float> values = Count(1000), query_values = {41, 7};
  Rows docs = InMemory("docs", values, 1);
  tknn_corpus* made = nullptr;
  ASSERT_EQ(tknn_corpus_create(docs.get(), TKNN_METRIC_L2, TKNN_DTYPE_INT8, &made),
            TKNN_INVALID_ARGUMENT);
  int64_t count = 0;
  tknn_rows_shape(docs.get(), &count, nullptr, nullptr);
  EXPECT_EQ(count, 1000) << "docs that were refused are still the caller's";
  ASSERT_EQ(tknn_corpus_create(docs.get(), TKNN_METRIC_L2, TKNN_DTYPE_FLOAT32, &made), TKNN_OK)
      << tknn_last_error();
  (void)docs.release();
  const Corpus corpus(made);
  EXPECT_EQ(tknn_corpus_kept_bytes(corpus.get()), 0);
  for (int i = 0; i < 3; ++i) {
    const Rows queries = InMemory("queries", query_values, 1);
    const tknn_search_params params = Params(2, TKNN_METRIC_L2);
    std::vector<int64_t> indices(4);
    std::vector<float> scores(4);
    ASSERT_EQ(tknn_corpus_search(corpus.get(), engine.get(), queries.get(), &params, nullptr,
                                 indices.data(), scores.data(), nullptr),
              TKNN_OK)
        << tknn_last_error();
    EXPECT_THAT(indices, ElementsAre(41, 40, 7, 6));
    EXPECT_GT(tknn_corpus_kept_bytes(corpus.get()), 0);
    if (i == 1) {
      EXPECT_EQ(tknn_corpus_forget(corpus.get()), TKNN_OK);
      EXPECT_EQ(tknn_corpus_kept_bytes(corpus.get()), 0);
    }
  }
  const Rows queries = InMemory("queries", query_values, 1);
  const tknn_search_params other = Params(2, TKNN_METRIC_IP);
  std::vector<int64_t> indices(4);
  std::vector<float> scores(4);
  EXPECT_EQ(tknn_corpus_search(corpus.get(), engine.get(), queries.get(), &other, nullptr,
                               indices.data(), scores.data(), nullptr),
            TKNN_INVALID_ARGUMENT);
  EXPECT_THAT(tknn_last_error(), HasSubstr("metric l2"));
}

// Long enough that it ends because it was told to.
class LongSearch {
 public:
  LongSearch() : values_(60'000 * 64) {
    for (size_t i = 0; i < values_.size(); ++i) {
      values_[i] = static_cast<float>((i * 7919) % 1009) - 500;
    }
    queries_ = InMemory("queries", values_, 64);
    docs_ = InMemory("docs", values_, 64);
    tknn_control* control = nullptr;
    EXPECT_EQ(tknn_control_create(&control), TKNN_OK);
    control_.reset(control);
    params_.threads = 1;
    thread_ = std::thread([this] {
      std::vector<int64_t> indices(60'000 * 5);
      std::vector<float> scores(60'000 * 5);
      status = tknn_search(engine_.get(), queries_.get(), docs_.get(), &params_, control_.get(),
                           indices.data(), scores.data(), nullptr);
      message = tknn_last_error();
    });
  }
  void WaitForProgress() const {
    for (int64_t total = 0; total == 0; std::this_thread::yield()) {
      tknn_control_progress(control_.get(), nullptr, &total);
      EXPECT_THAT(total, testing::AnyOf(0, int64_t{60'000} * 60'000));
    }
  }
  void Cancel() { tknn_control_cancel(control_.get()); }
  void Join() { thread_.join(); }
  tknn_engine* engine() { return engine_.get(); }

  tknn_status status = TKNN_OK;
  std::string message;

 private:
  std::vector<float> values_;
  Engine engine_ = OpenCpu();
  Rows queries_, docs_;
  Control control_;
  tknn_search_params params_ = Params(5);
  std::thread thread_;
};

TEST(CapiTest, AnotherThreadSeesProgressAndCancels) {
  LongSearch search;
  search.WaitForProgress();
  search.Cancel();
  search.Join();
  EXPECT_EQ(search.status, TKNN_CANCELLED);
  EXPECT_THAT(search.message, HasSubstr("interrupted"));
}

TEST(CapiTest, AnEngineInUseIsBusy) {
  LongSearch search;
  search.WaitForProgress();
  const std::vector<float> values = Count(5);
  const Rows queries = InMemory("queries", values, 1), docs = InMemory("docs", values, 1);
  const tknn_search_params params = Params(1);
  std::vector<int64_t> indices(5);
  std::vector<float> scores(5);
  EXPECT_EQ(tknn_search(search.engine(), queries.get(), docs.get(), &params, nullptr,
                        indices.data(), scores.data(), nullptr),
            TKNN_BUSY);
  EXPECT_THAT(tknn_last_error(), HasSubstr("the engine is in use"));
  search.Cancel();
  search.Join();
  EXPECT_EQ(tknn_search(search.engine(), queries.get(), docs.get(), &params, nullptr,
                        indices.data(), scores.data(), nullptr),
            TKNN_OK);
}

TEST(CapiTest, AForkedChildSearchesWithWhatItHas) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP()
      << "NOT RUN: runs without ThreadSanitizer, which ends a forked child that starts a thread";
#endif
  const Engine engine = OpenCpu();
  const std::vector<float> values = Count(2000);
  tknn_corpus* made = nullptr;
  ASSERT_EQ(tknn_corpus_create(InMemory("docs", values, 1).release(), TKNN_METRIC_L2,
                               TKNN_DTYPE_FLOAT32, &made),
            TKNN_OK);
  const Corpus corpus(made);
  const auto search = [&] {
    const std::vector<float> query_values = {1999, 3};
    const Rows queries = InMemory("queries", query_values, 1);
    tknn_search_params params = Params(1, TKNN_METRIC_L2);
    params.threads = 3;
    std::vector<int64_t> indices(2);
    std::vector<float> scores(2);
    return tknn_corpus_search(corpus.get(), engine.get(), queries.get(), &params, nullptr,
                              indices.data(), scores.data(), nullptr) == TKNN_OK &&
           indices == std::vector<int64_t>{1999, 3};
  };
  ASSERT_TRUE(search());
  const pid_t child = fork();
  if (child == 0) {
    alarm(30);
    _exit(search() && search() ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(search());
}

TEST(CapiTest, AJobWritesAResultThatCanBeLoaded) {
  const std::string q = TestPath("q.npy"), d = TestPath("d.npy"), o = TestPath("o.pkl");
  WriteNpy(q, {1, 5}, 1);
  WriteNpy(d, Count(4), 1);
  tknn_job_params params = JobOf(q, d, o);
  params.search = Params(2, TKNN_METRIC_L2);
  params.verify_queries = 2;
  tknn_job* job = nullptr;
  ASSERT_EQ(tknn_job_run(&params, nullptr, &job), TKNN_OK) << tknn_last_error();
  EXPECT_EQ(tknn_job_output_path(job), o);
  EXPECT_THAT(tknn_job_report_json(job), HasSubstr("\"queries\":2"));
  EXPECT_THAT(tknn_job_notes(job), HasSubstr("verified 2 of 2"));
  tknn_job_destroy(job);

  tknn_result* result = nullptr;
  ASSERT_EQ(tknn_result_load(o.c_str(), &result), TKNN_OK) << tknn_last_error();
  int64_t num_queries = 0, k = 0;
  tknn_dtype dtype = -1;
  tknn_result_shape(result, &num_queries, &k, &dtype);
  EXPECT_EQ(num_queries, 2);
  EXPECT_EQ(k, 2);
  EXPECT_EQ(dtype, TKNN_DTYPE_FLOAT32);
  std::vector<int64_t> indices(4);
  std::vector<float> scores(4);
  tknn_result_copy(result, indices.data(), scores.data());
  EXPECT_THAT(indices, ElementsAre(1, 0, 3, 2));
  EXPECT_THAT(scores, ElementsAre(0.0F, -1.0F, -4.0F, -9.0F));
  EXPECT_STREQ(tknn_result_text(result, "metric"), "l2");
  EXPECT_EQ(tknn_result_text(result, "queries_path"), q);
  EXPECT_STREQ(tknn_result_text(result, "tiny_knn_version"), tknn_version());
  EXPECT_EQ(tknn_result_text(result, "k"), nullptr);
  EXPECT_EQ(tknn_result_batch_size(result), 512);
  tknn_result_destroy(result);
}

TEST(CapiTest, FilesThatCannotBeUsedAreErrorsThatSayWhatTheyAre) {
  const std::string q = TestPath("q.npy"), bad = TestPath("bad.npy"), o = TestPath("o.pkl");
  WriteNpy(q, {1, 5}, 1);
  std::ofstream(bad) << "nonsense";
  tknn_job* job = nullptr;
  tknn_job_params params = JobOf(q, bad, o);
  EXPECT_EQ(tknn_job_run(&params, nullptr, &job), TKNN_INVALID_ARGUMENT);
  EXPECT_THAT(tknn_last_error(), HasSubstr("bad.npy"));
  EXPECT_EQ(tknn_last_errno(), 0);
  const std::string nowhere = "/nowhere/o.pkl";  // the parameters point into it
  params = JobOf(q, q, nowhere);
  EXPECT_EQ(tknn_job_run(&params, nullptr, &job), TKNN_NOT_FOUND);
  EXPECT_EQ(tknn_last_errno(), ENOENT);
  params = JobOf(q, q, q);
  EXPECT_EQ(tknn_job_run(&params, nullptr, &job), TKNN_INVALID_ARGUMENT);
  EXPECT_THAT(tknn_last_error(), HasSubstr("overwrite"));
  params = JobOf(q, q, o);
  params.search.k = -1;
  EXPECT_EQ(tknn_job_run(&params, nullptr, &job), TKNN_INVALID_ARGUMENT);
  EXPECT_EQ(job, nullptr);
  tknn_result* result = nullptr;
  EXPECT_EQ(tknn_result_load(bad.c_str(), &result), TKNN_INVALID_ARGUMENT);
  EXPECT_EQ(tknn_result_load("/nowhere", &result), TKNN_NOT_FOUND);
  EXPECT_EQ(result, nullptr);
  EXPECT_FALSE(std::filesystem::exists(o));
}

TEST(CapiTest, ACancelledJobLeavesNothingBehind) {
  const std::string q = TestPath("q.npy"), o = TestPath("o.pkl");
  WriteNpy(q, Count(100), 1);
  tknn_control* made = nullptr;
  ASSERT_EQ(tknn_control_create(&made), TKNN_OK);
  const Control control(made);
  tknn_control_cancel(control.get());
  const tknn_job_params params = JobOf(q, q, o);
  tknn_job* job = nullptr;
  EXPECT_EQ(tknn_job_run(&params, control.get(), &job), TKNN_CANCELLED);
  int files = 0;
  for ([[maybe_unused]] const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(o).parent_path())) {
    ++files;
  }
  EXPECT_EQ(files, 1);
}

}  // namespace
