// A small machine that reads pickles of plain data and numpy arrays, and nothing else.
//
// It knows the opcodes that Python emits for dicts of such values in protocols 2 to 5, and these
// callables, by name only: numpy's _reconstruct, _frombuffer, ndarray and dtype, and the two that
// stand for bytes in protocol 2 (_codecs.encode to latin1, bytes()). Whatever else a pickle asks
// for is refused; no code of the pickle's choice ever runs. Work and memory are linear in the size
// of the input, whatever it holds, and nothing recurses.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace tiny_knn {

// Most opcodes that are executed; a result file has about 100.
inline constexpr int kMaxPickleOpcodes = 100'000;

struct PickleValue {
  enum class Kind {
    kNone,
    kBool,
    kInt,
    kFloat,
    kText,
    kBytes,
    kTuple,
    kList,
    kDict,
    kGlobal,
    kDType,
    kArray
  };

  Kind kind = Kind::kNone;
  int64_t number = 0;  // kBool, kInt
  double real = 0;     // kFloat
  std::string_view
      text;  // kText (UTF-8, surrogates passed), kBytes; kDType: "i8"; kArray: its data
  // kTuple, kList: its values; kDict: key, value, key, value ... in the order set, keys may repeat.
  std::vector<int32_t> items;
  char byte_order = '\0';      // kDType: '<', '>', '|' or '=', '\0' before it is known
  std::vector<int64_t> shape;  // kArray, C order
  int32_t dtype = -1;          // kArray: the value that is its dtype; -1 before it is known
  int global = 0;              // kGlobal: internal
};

std::string_view PickleKindName(PickleValue::Kind kind);

// The values of one pickle. Views point into the input or into `owned`.
struct PickleDocument {
  // Values refer to each other by index, in any order. A deque: growing moves none of them.
  std::deque<PickleValue> values;
  std::deque<std::string> owned;
  int32_t root = 0;
};

// Reads the pickle at the start of `input`, which must outlive the result; bytes after its end are
// ignored. Every kArray in the result is complete: shape, dtype and data agree. Errors are
// InvalidArgument: what was found, and where.
absl::StatusOr<PickleDocument> ParsePickle(std::span<const uint8_t> input);

}  // namespace tiny_knn
