// What the tests of the C interface share: small files and parameters.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

#include "capi/tiny_knn.h"
#include "gtest/gtest.h"

// 0, 1, 2, ... in one column.
inline std::vector<float> Count(int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  std::iota(values.begin(), values.end(), 0.0F);
  return values;
}

inline tknn_search_params Params(int64_t k, tknn_metric metric = TKNN_METRIC_IP) {
  tknn_search_params params = {};
  params.k = k;
  params.metric = metric;
  return params;
}

// In a folder of the running test's own.
inline std::string TestPath(const std::string& name) {
  const std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) /
      testing::UnitTest::GetInstance()->current_test_info()->name();
  std::filesystem::create_directories(folder);
  return folder / name;
}

// float32 [values / dim, dim], C order.
inline void WriteNpy(const std::string& path, const std::vector<float>& values, int64_t dim) {
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" +
                       std::to_string(static_cast<int64_t>(values.size()) / dim) + ", " +
                       std::to_string(dim) + "), }";
  header.resize(117, ' ');
  std::ofstream file(path, std::ios::binary);
  file << std::string("\x93NUMPY\x01\x00\x76\x00", 10) << header << '\n';
  file.write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(float)));
}

// Points into its arguments.
inline tknn_job_params JobOf(const std::string& queries, const std::string& docs,
                             const std::string& output) {
  tknn_job_params params = {};
  params.queries_path = queries.c_str();
  params.docs_path = docs.c_str();
  params.output_path = output.c_str();
  params.stored_dtype = TKNN_DTYPE_AS_STORED;
  params.device = "cpu";
  return params;
}
