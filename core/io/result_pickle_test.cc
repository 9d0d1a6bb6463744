// What the writer promises its caller, and what the reader does with pickles that nobody sane
// writes. result_pickle_python_test.py is the other half.
#include "core/io/result_pickle.h"

#include <sys/resource.h>

#include <csignal>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "core/io/pickle_machine.h"
#include "core/io/result_file.h"
#include "core/matrix/dtype.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using std::string_literals::operator""s;

ResultMetadata Metadata(int64_t num_queries, int64_t k) {
  ResultMetadata metadata;
  metadata.num_queries = num_queries;
  metadata.k = k;
  metadata.queries_path = "q.npy";
  metadata.docs_path = "d.npy";
  metadata.batch_size = 512;
  metadata.dtype = "float32";
  metadata.device = "cpu";
  metadata.metric = "ip";
  metadata.tiny_knn_version = "0.0.0-test";
  return metadata;
}

std::string TestPath() {
  return testing::TempDir() + testing::UnitTest::GetInstance()->current_test_info()->name() +
         ".pkl";
}

std::string Refusal(std::string_view pickle) {
  const auto result =
      ParseResultPickle({reinterpret_cast<const uint8_t*>(pickle.data()), pickle.size()});
  if (result.ok()) return "(accepted)";
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(result.status().message());
}

// --- the writer

TEST(ResultPickleTest, WhatIsWrittenInAnyOrderIsReadBack) {
  const std::vector<int64_t> indices = {0, 1, 2, 3, 4, std::numeric_limits<int64_t>::max()};
  const std::vector<float> scores = {1.5f, -0.0f, 1e-45f, 3e38f, -1.0f, 0.1f};
  auto writer = ResultPickleWriter::Create(TestPath(), Metadata(3, 2));
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->WriteRows(2, 1, indices.data() + 4, scores.data() + 4).ok());
  ASSERT_TRUE((*writer)->WriteRows(0, 2, indices.data(), scores.data()).ok());
  ASSERT_TRUE((*writer)->Commit().ok());
  const auto result = ReadResult(TestPath());
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->indices, indices);
  ASSERT_EQ(result->scores.size(), scores.size());
  for (size_t i = 0; i < scores.size(); ++i) EXPECT_EQ(result->scores[i], double{scores[i]});
  EXPECT_EQ(result->metadata.num_queries, 3);
  EXPECT_EQ(result->metadata.k, 2);
  EXPECT_EQ(result->metadata.score_dtype, DType::kFloat32);
  EXPECT_EQ(result->metadata.queries_path, "q.npy");
  EXPECT_EQ(result->metadata.docs_path, "d.npy");
  EXPECT_EQ(result->metadata.batch_size, 512);
  EXPECT_EQ(result->metadata.dtype, "float32");
  EXPECT_EQ(result->metadata.device, "cpu");
  EXPECT_EQ(result->metadata.metric, "ip");
  EXPECT_EQ(result->metadata.tiny_knn_version, "0.0.0-test");
}

TEST(ResultPickleTest, CommitWantsEveryRow) {
  const std::vector<int64_t> indices(10);
  const std::vector<float> scores(10);
  auto writer = ResultPickleWriter::Create(TestPath(), Metadata(10, 1));
  ASSERT_TRUE(writer.ok());
  for (const auto& [first, count] : std::vector<std::pair<int64_t, int64_t>>{
           {0, 2}, {8, 2}, {4, 2}, {4, 1}, {2, 2}, {1, 5}, {6, 1}, {3, 0}}) {
    EXPECT_EQ((*writer)->Commit().code(), absl::StatusCode::kFailedPrecondition);
    ASSERT_TRUE((*writer)->WriteRows(first, count, indices.data(), scores.data()).ok());
  }
  EXPECT_EQ((*writer)->Commit().code(), absl::StatusCode::kFailedPrecondition) << "row 7";
  EXPECT_FALSE(std::filesystem::exists(TestPath()));
  ASSERT_TRUE((*writer)->WriteRows(7, 1, indices.data(), scores.data()).ok());
  EXPECT_TRUE((*writer)->Commit().ok());
  EXPECT_TRUE(std::filesystem::exists(TestPath()));
}

TEST(ResultPickleTest, RowsOutsideTheResultAreRefused) {
  const std::vector<int64_t> indices(10);
  const std::vector<float> scores(10);
  auto writer = ResultPickleWriter::Create(TestPath(), Metadata(3, 1));
  ASSERT_TRUE(writer.ok());
  EXPECT_FALSE((*writer)->WriteRows(3, 1, indices.data(), scores.data()).ok());
  EXPECT_FALSE((*writer)->WriteRows(2, 2, indices.data(), scores.data()).ok());
  EXPECT_FALSE((*writer)->WriteRows(-1, 1, indices.data(), scores.data()).ok());
}

TEST(ResultPickleTest, NothingIsLeftWithoutCommit) {
  const std::string folder = testing::TempDir() + "left";
  std::filesystem::create_directory(folder);
  {
    auto writer = ResultPickleWriter::Create(folder + "/r.pkl", Metadata(3, 1));
    ASSERT_TRUE(writer.ok());
    EXPECT_FALSE(std::filesystem::is_empty(folder));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

TEST(ResultPickleTest, FullDiskIsFoundBeforeTheSearch) {
  signal(SIGXFSZ, SIG_IGN);
  rlimit old;
  getrlimit(RLIMIT_FSIZE, &old);
  const rlimit small = {1 << 20, old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const auto too_large = ResultPickleWriter::Create(TestPath(), Metadata(1000, 100)).status();
  const auto fits = ResultPickleWriter::Create(TestPath(), Metadata(1000, 50)).status();
  setrlimit(RLIMIT_FSIZE, &old);
  EXPECT_EQ(too_large.code(), absl::StatusCode::kResourceExhausted) << too_large;
  EXPECT_TRUE(fits.ok()) << fits;
}

TEST(ResultPickleTest, ResultsBeyondAnyFileAreRefused) {
  for (const auto& [queries, k] : std::vector<std::pair<int64_t, int64_t>>{
           {int64_t{1} << 40, int64_t{1} << 40}, {int64_t{1} << 61, 1}, {-1, 1}, {1, -1}}) {
    const absl::Status status =
        ResultPickleWriter::Create(TestPath(), Metadata(queries, k)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << queries << " " << k;
  }
  ResultMetadata metadata = Metadata(1, 1);
  metadata.score_dtype = DType::kFloat16;
  EXPECT_FALSE(ResultPickleWriter::Create(TestPath(), metadata).ok());
}

// --- the reader

TEST(ResultPickleReaderTest, FilesThatAreNoPickleAreRefusedByName) {
  EXPECT_EQ(ReadResult("/dev/null").status().code(), absl::StatusCode::kInvalidArgument);
  const absl::Status missing = ReadResult(TestPath()).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(std::string(missing.message()),
            TestPath() +
                ": cannot open, expected a result of tiny-knn run (.pkl, .npz): No such file or "
                "directory");
  EXPECT_EQ(Refusal(""), "is not a pickle of protocol 2 or later");
  EXPECT_EQ(Refusal("}."), "is not a pickle of protocol 2 or later");
}

TEST(ResultPickleReaderTest, BrokenMachinesAreRefusedWithTheirPlace) {
  for (const auto& [pickle, message] : std::vector<std::pair<std::string, std::string>>{
           {"\x80\x04", "the pickle ends without STOP (pickle byte 2)"},
           {"\x80\x04.", "the pickle holds no single value (pickle byte 2)"},
           {"\x80\x04NN.", "the pickle holds no single value (pickle byte 4)"},
           {"\x80\x04(N.", "the pickle holds no single value (pickle byte 4)"},
           {"\x80\x04N.", "holds None; expected a dict with 'indices' and 'scores'"},
           {"\x80\x06N.", "found an unknown pickle protocol, expected 2 to 5 (pickle byte 0)"},
           {"\x80\x04t", "the pickle has no mark (pickle byte 2)"},
           {"\x80\x04N(\x85", "the pickle's stack is empty (pickle byte 4)"},
           {"\x80\x04R", "the pickle's stack is empty (pickle byte 2)"},
           {"\x80\x04N(0", "the pickle's stack is empty (pickle byte 4)"},
           {"\x80\x04h\x07", "the pickle refers to nothing (pickle byte 2)"},
           {"\x80\x04"s + "cos\nsystem\n",
            "found os.system, expected only numpy arrays, strings and numbers (pickle byte 2)"},
           {"\x80\x04"s + "cos\nsystem", "the file is truncated (pickle byte 2)"},
           {"\x80\x04)NR", "the pickle calls a tuple (pickle byte 4)"},
           {"\x80\x04"s + "cnumpy\nndarray\n)R", "the pickle calls numpy.ndarray (pickle byte 18)"},
           {"\x80\x04}(NNNu", "the pickle adds items to a dict (pickle byte 7)"},
           {"\x80\x04]NNs", "the pickle adds items to a list (pickle byte 5)"},
           {"\x80\x04N)b", "the pickle sets the state of None (pickle byte 4)"},
           {"\x80\x04i", "found pickle opcode 0x69, which no result file has (pickle byte 2)"},
           {"\x80\x04\x97", "the pickle keeps its arrays outside the file (pickle byte 2)"},
           {"\x80\x04\x8a\x09", "found an int beyond 64 bits (pickle byte 2)"},
           {"\x80\x04X\xff\xff\xff\xff", "the file is truncated (pickle byte 2)"},
           {"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xff",
            "the file is truncated (pickle byte 2)"},
           {"\x80\x04"s + "cnumpy\ndtype\n\x8c\x02" + "O8\x85R",
            "found dtype 'O8', expected int64, float32 or float64 (pickle byte 20)"}}) {
    EXPECT_EQ(Refusal(pickle), message);
  }
}

TEST(ResultPickleReaderTest, ArraysThatDoNotFitTheirDataAreRefused) {
  // numpy.core.numeric._frombuffer(data, dtype, shape, 'C') of a shape that is given.
  const auto array = [](std::string_view shape) {
    return "\x80\x05"s + "cnumpy.core.numeric\n_frombuffer\n(C\x08" + std::string(8, 'x') +
           "cnumpy\ndtype\n\x8c\x02i8\x85R" + std::string(shape) + "\x8c\x01"s + "CtR.";
  };
  const auto longs = [](int64_t a, int64_t b) {
    std::string out;
    for (const int64_t value : {a, b}) {
      out += "\x8a\x08";
      for (int i = 0; i < 8; ++i) out += static_cast<char>(value >> (8 * i) & 0xFF);
    }
    return out + "\x86";
  };
  EXPECT_EQ(Refusal(array(longs(1, 1))),
            "holds a numpy array; expected a dict with 'indices' and 'scores'");
  EXPECT_TRUE(Refusal(array(longs(2, 1))).starts_with("an array has 8 bytes of data, 16 expected"));
  EXPECT_TRUE(Refusal(array(longs(0, 1))).starts_with("an array has 8 bytes of data, 0 expected"));
  EXPECT_TRUE(Refusal(array(longs(int64_t{1} << 62, int64_t{1} << 62)))
                  .starts_with("an array is larger than any file"));
  EXPECT_TRUE(Refusal(array(longs(-1, -1)))
                  .starts_with("an array's shape holds something that is no size"));
  EXPECT_TRUE(Refusal(array("N")).starts_with("an array has None as shape"));
}

TEST(ResultPickleReaderTest, ArrayThatWasNeverFilledIsRefused) {
  EXPECT_TRUE(Refusal("\x80\x04"s + "cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n\x85R.")
                  .starts_with("an array was left empty"));
}

TEST(ResultPickleReaderTest, BombsAreRefusedInLinearTimeAndMemory) {
  // Opcodes without end, nesting without end, and one string encoded again and again.
  EXPECT_TRUE(
      Refusal("\x80\x04" + std::string(10'000'000, 'N')).starts_with("the pickle has more"));
  std::string nested = "\x80\x04N";
  nested.append(static_cast<size_t>(kMaxPickleOpcodes) - 10, '\x85');
  EXPECT_EQ(Refusal(nested + "."), "holds a tuple; expected a dict with 'indices' and 'scores'");
  std::string lists = "\x80\x04" + std::string(40'000, ']') + std::string(39'999, 'a') + ".";
  EXPECT_EQ(Refusal(lists), "holds a list; expected a dict with 'indices' and 'scores'");
  std::string encode = "\x80\x02"s + "c_codecs\nencode\nq" + std::string(1, '\0') + "X";
  encode += "\x40\x42\x0f"s + std::string(1, '\0') + std::string(1'000'000, 'x') + "q\x01";
  encode += "X\x06"s + std::string(3, '\0') + "latin1q\x02";
  for (int i = 0; i < 10'000; ++i) encode += "h"s + std::string(1, '\0') + "h\x01h\x02\x86R";
  EXPECT_TRUE(Refusal(encode + ".").starts_with("the pickle encodes a string more than once"));
}

TEST(ResultPickleReaderTest, ListThatHoldsItselfIsNoTrouble) {
  EXPECT_EQ(Refusal("\x80\x04]\x94h"s + std::string(1, '\0') + "a."),
            "holds a list; expected a dict with 'indices' and 'scores'");
}

}  // namespace
}  // namespace tiny_knn
