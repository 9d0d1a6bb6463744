// What a pickle of plain data and numpy arrays holds, once it is read.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace tiny_knn {

// The only callables that a pickle may name.
enum class PickleCallable {
  kReconstruct,   // numpy's _reconstruct: an array that its state fills
  kFromBuffer,    // numpy's _frombuffer (protocol 5)
  kNdArray,       // numpy.ndarray, as an argument only
  kNumpyDType,    // numpy.dtype
  kCodecsEncode,  // _codecs.encode(text, 'latin1'): how protocol 2 spells bytes
  kBytesType,     // bytes(): how protocol 2 spells no bytes
};

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
  PickleCallable callable = PickleCallable::kNdArray;  // kGlobal
};

std::string_view PickleKindName(PickleValue::Kind kind);

// The values of one pickle. Views point into the input or into `owned`.
struct PickleDocument {
  // Values refer to each other by index, in any order. A deque: growing moves none of them.
  std::deque<PickleValue> values;
  std::deque<std::string> owned;
  int32_t root = 0;
};

}  // namespace tiny_knn
