// A matrix in memory, and the oracle's answer for it.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "core/io/row_source.h"
#include "core/matrix/dtype.h"
#include "core/search/reference_search.h"
#include "core/search/search.h"
#include "gtest/gtest.h"

namespace tiny_knn {

struct RandomMatrix {
  RandomMatrix(int64_t num_rows, int64_t width, unsigned seed)
      : rows(num_rows), dim(width), values(static_cast<size_t>(num_rows * width)) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> any;
    for (float& value : values) value = any(generator);
  }
  MatrixView View() const {
    return {values.data(), DType::kFloat32, rows, dim, dim * int64_t{sizeof(float)}};
  }
  std::unique_ptr<RowSource> Source(const char* name) const {
    return MakeMemoryRowSource(name, View());
  }

  int64_t rows, dim;
  std::vector<float> values;
};

// Arrays for the results of float32 searches, of nonsense until they are filled.
struct Found {
  Found(int64_t queries, int64_t k_of_search)
      : num_queries(queries),
        k(k_of_search),
        indices(static_cast<size_t>(queries * k), -7),
        scores(static_cast<size_t>(queries * k), -7) {}
  TopKView View() { return {num_queries, k, DType::kFloat32, scores.data(), indices.data()}; }
  // Bit for bit.
  bool operator==(const Found& other) const {
    return indices == other.indices && scores.size() == other.scores.size() &&
           std::memcmp(scores.data(), other.scores.data(), scores.size() * sizeof(float)) == 0;
  }

  int64_t num_queries, k;
  std::vector<int64_t> indices;
  std::vector<float> scores;
};

inline Found Oracle(RowSource& queries, RowSource& docs, const SearchParams& params) {
  Found found(queries.rows(), params.k);
  std::vector<int64_t> all(static_cast<size_t>(queries.rows()));
  std::iota(all.begin(), all.end(), 0);
  SearchReport report;
  EXPECT_TRUE(ReferenceSearch(queries, all, docs, params, found.View(), report).ok());
  return found;
}

}  // namespace tiny_knn
