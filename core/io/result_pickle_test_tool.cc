// For tests: writes a result whose values Python can compute, or prints one that it reads.
//
//   result_pickle_test_tool write PATH Q K float32|float64 QUERIES_PATH BATCH_SIZE
//       indices[i, j] = 1000003 * i - j, scores[i, j] = (i - j) / 8, or NaN where i == j == 1
//   result_pickle_test_tool read PATH
//       one line a field, then one line per element: index and score as a C hexadecimal float
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "core/io/result_file.h"
#include "core/io/result_pickle.h"
#include "fmt/core.h"

namespace tiny_knn {
namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return 1;
}

double Score(int64_t i, int64_t j) {
  return i == 1 && j == 1 ? std::nan("") : static_cast<double>(i - j) / 8;
}

int Write(char** argv) {
  ResultMetadata metadata;
  metadata.num_queries = std::stoll(argv[3]);
  metadata.k = std::stoll(argv[4]);
  metadata.score_dtype = std::strcmp(argv[5], "float64") == 0 ? DType::kFloat64 : DType::kFloat32;
  metadata.queries_path = argv[6];
  metadata.docs_path = "docs \xc3\xbc.npy";
  metadata.batch_size = std::stoll(argv[7]);
  metadata.dtype = argv[5];
  metadata.device = "cpu";
  metadata.metric = "ip";
  metadata.tiny_knn_version = "0.0.0-test";
  auto writer = ResultPickleWriter::Create(argv[2], metadata);
  if (!writer.ok()) return Fail(writer.status());
  // Backwards, a row at a time: any order must do.
  for (int64_t i = metadata.num_queries - 1; i >= 0; --i) {
    std::vector<int64_t> indices;
    std::vector<float> floats;
    std::vector<double> doubles;
    for (int64_t j = 0; j < metadata.k; ++j) {
      indices.push_back(1000003 * i - j);
      doubles.push_back(Score(i, j));
      floats.push_back(static_cast<float>(Score(i, j)));
    }
    const void* scores = metadata.score_dtype == DType::kFloat64
                             ? static_cast<const void*>(doubles.data())
                             : static_cast<const void*>(floats.data());
    const absl::Status status = (*writer)->WriteRows(i, 1, indices.data(), scores);
    if (!status.ok()) return Fail(status);
  }
  const absl::Status status = (*writer)->Commit();
  return status.ok() ? 0 : Fail(status);
}

int Read(const char* path) {
  const absl::StatusOr<ResultFile> result = ReadResult(path);
  if (!result.ok()) return Fail(result.status());
  const ResultMetadata& m = result->metadata;
  fmt::print("{} {} {} {}|{}|{} {} {} {} {}\n", m.num_queries, m.k, DTypeName(m.score_dtype),
             m.queries_path, m.docs_path, m.batch_size, m.dtype, m.device, m.metric,
             m.tiny_knn_version);
  for (size_t i = 0; i < result->indices.size(); ++i) {
    std::printf("%s %a\n", std::to_string(result->indices[i]).c_str(), result->scores[i]);
  }
  return 0;
}

}  // namespace
}  // namespace tiny_knn

int main(int argc, char** argv) {
  if (argc == 8 && std::strcmp(argv[1], "write") == 0) return tiny_knn::Write(argv);
  if (argc == 3 && std::strcmp(argv[1], "read") == 0) return tiny_knn::Read(argv[2]);
  std::fprintf(stderr, "wrong arguments; see the source\n");
  return 2;
}
