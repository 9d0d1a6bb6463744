// .npy files of int32 whose values say where they stand, for the tests of row sources.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>

#include "fmt/format.h"
#include "gtest/gtest.h"

namespace tiny_knn {

// The directory of one test, removed with Bazel's.
inline std::string TestPath(const std::string& name) {
  const auto* info = testing::UnitTest::GetInstance()->current_test_info();
  const std::string folder = testing::TempDir() + info->name();
  mkdir(folder.c_str(), 0777);
  return folder + "/" + name;
}

inline void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

inline int32_t Value(int64_t i, int64_t j) { return static_cast<int32_t>(i * 1000003 + j); }

struct Layout {
  bool fortran = false;
  bool big_endian = false;
  int header_padding = 0;
};

// An int32 .npy file of Value(i, j).
inline std::string NpyBytes(int64_t rows, int64_t dim, const Layout& layout) {
  std::string dict =
      fmt::format("{{'descr': '{}i4', 'fortran_order': {}, 'shape': ({}, {}), }}",
                  layout.big_endian ? '>' : '<', layout.fortran ? "True" : "False", rows, dim);
  while ((10 + static_cast<int64_t>(dict.size())) % 64 != layout.header_padding) {
    dict += ' ';
  }
  std::string bytes = "\x93NUMPY\x01";
  bytes += '\0';
  bytes += static_cast<char>(dict.size() & 0xFF);
  bytes += static_cast<char>(dict.size() >> 8);
  bytes += dict;
  const size_t start = bytes.size();
  bytes.resize(start + static_cast<size_t>(rows * dim * 4));
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < dim; ++j) {
      uint32_t value = static_cast<uint32_t>(Value(i, j));
      if (layout.big_endian) value = __builtin_bswap32(value);
      const int64_t at = layout.fortran ? j * rows + i : i * dim + j;
      std::memcpy(bytes.data() + start + static_cast<size_t>(at * 4), &value, 4);
    }
  }
  return bytes;
}

}  // namespace tiny_knn
