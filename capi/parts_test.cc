// Ranges of docs, what is made of them, and checkpoints, as users of the C interface meet them.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "capi/jobs_for_test.h"
#include "capi/tiny_knn.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(CapiPartsTest, PartsAreMergedAndACheckpointIsRemovedAtTheEnd) {
  const std::string q = TestPath("q.npy"), d = TestPath("d.npy"), o = TestPath("o.pkl"),
                    a = TestPath("a.pkl"), b = TestPath("b.npz"), c = TestPath("c.ckpt");
  WriteNpy(q, {1, 5}, 1);
  WriteNpy(d, Count(9), 1);
  const auto run = [&](const std::string& output, int64_t begin, int64_t end) {
    tknn_job_params params = JobOf(q, d, output);
    params.search = Params(4, TKNN_METRIC_L2);
    params.search.exclude_self = 1;
    params.docs_begin = begin;
    params.docs_end = end;
    params.checkpoint_path = c.c_str();
    params.checkpoint_seconds = -1;
    tknn_job* job = nullptr;
    const tknn_status status = tknn_job_run(&params, nullptr, &job);
    tknn_job_destroy(job);
    EXPECT_FALSE(std::filesystem::exists(c));
    return status;
  };
  ASSERT_EQ(run(o, 0, 0), TKNN_OK) << tknn_last_error();
  ASSERT_EQ(run(a, 0, 2), TKNN_OK) << tknn_last_error();
  ASSERT_EQ(run(b, 2, 0), TKNN_OK) << tknn_last_error();
  EXPECT_EQ(run(b, 3, 3), TKNN_INVALID_ARGUMENT);
  EXPECT_THAT(tknn_last_error(), HasSubstr("docs_begin=3, docs_end=3"));

  tknn_result* part = nullptr;
  ASSERT_EQ(tknn_result_load(a.c_str(), &part), TKNN_OK) << tknn_last_error();
  int64_t begin = -1, end = -1, num_docs = -1, k_wanted = -1;
  tknn_result_part(part, &begin, &end, &num_docs, &k_wanted);
  EXPECT_THAT((std::vector<int64_t>{begin, end, num_docs, k_wanted}), ElementsAre(0, 2, 9, 4));
  tknn_result_part(part, nullptr, nullptr, nullptr, nullptr);
  EXPECT_EQ(tknn_result_exclude_self(part), 1);
  EXPECT_THAT(tknn_result_text(part, "queries_fingerprint"), HasSubstr("2x1 float32 crc32"));
  EXPECT_STREQ(tknn_result_text(part, "docs_manifest"), "");
  tknn_result_destroy(part);

  const std::string merged = TestPath("merged.pkl");
  const char* parts[] = {b.c_str(), a.c_str()};
  EXPECT_EQ(tknn_merge(parts, 1, merged.c_str(), 0, nullptr), TKNN_INVALID_ARGUMENT);
  EXPECT_THAT(tknn_last_error(), HasSubstr("docs 0:2 are missing"));
  ASSERT_EQ(tknn_merge(parts, 2, merged.c_str(), 0, nullptr), TKNN_OK) << tknn_last_error();
  const auto bytes = [](const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  EXPECT_EQ(bytes(merged), bytes(o));
  const char* none[] = {nullptr};
  EXPECT_EQ(tknn_merge(none, 1, merged.c_str(), 0, nullptr), TKNN_INVALID_ARGUMENT);
}

}  // namespace
