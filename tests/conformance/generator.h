// Makes the matrices of the conformance list: seeded, and the same bits on every machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/matrix/dtype.h"
#include "core/matrix/matrix_view.h"

namespace tiny_knn::conformance {

// A number on its way into a matrix: holds every float64 and every int64 exactly.
using Value = long double;

// SplitMix64. The standard library's distributions differ between implementations; this does not.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  // Uniform in [0, n), n >= 1 (biased by less than n / 2^64).
  int64_t Below(int64_t n);
  // Uniform in [-1, 1), 24 bits.
  Value Unit();
  // About normal (a sum of four uniforms), in (-2, 2).
  Value Bell();
  bool OneIn(int64_t n) { return Below(n) == 0; }

 private:
  uint64_t state_;
};

// What a dtype can hold, for values at its edges.
struct Range {
  Value max;          // greatest finite value
  Value min_normal;   // least positive normal number; 1 for integers
  Value tiniest;      // least positive number; 1 for integers
  int mantissa_bits;  // explicit ones; 0 for integers
  int min_exponent;   // of min_normal
};
Range RangeOf(DType dtype);

// The neighbour of `value` in `dtype`, `steps` representable numbers further from zero
// (integers: value + steps).
Value Step(Value value, DType dtype, int64_t steps);

// The values of one problem, before they are stored. A scenario fills both matrices, because most
// of what breaks a bound is a relation between the two.
struct Problem {
  int64_t num_queries = 0;
  int64_t num_docs = 0;
  int64_t dim = 0;
  DType query_dtype = DType::kFloat32;    // of the queries' file
  DType doc_dtype = DType::kFloat32;      // of the docs' file
  DType compute_dtype = DType::kFloat32;  // decides how fine a tie can be
  std::vector<Value> queries = {};        // row-major [num_queries, dim]
  std::vector<Value> docs = {};           // row-major [num_docs, dim]

  Value& q(int64_t i, int64_t j) { return queries[i * dim + j]; }
  Value& d(int64_t i, int64_t j) { return docs[i * dim + j]; }
};

// One way of filling a problem. All values are zero before the call.
struct Scenario {
  std::string_view name;
  void (*fill)(Problem& problem, Random& random);
};

// Scenarios for floating-point files, and those that also make sense for integers. Values that a
// file's dtype cannot hold are rounded to it (floating point) or clamped to it (integers).
const std::vector<Scenario>& FloatScenarios();
const std::vector<Scenario>& IntegerScenarios();
const Scenario& FindScenario(std::string_view name);

// Stores values as `dtype`. Row i starts at `offset + i * stride` bytes.
struct StoredMatrix {
  std::vector<std::byte> bytes;
  MatrixView view;
};
StoredMatrix Store(const std::vector<Value>& values, DType dtype, int64_t rows, int64_t dim,
                   int64_t extra_stride_bytes, int64_t offset_bytes);

}  // namespace tiny_knn::conformance
