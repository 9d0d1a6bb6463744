#include "core/io/pickle_value.h"

namespace tiny_knn {

std::string_view PickleKindName(PickleValue::Kind kind) {
  switch (kind) {
    case PickleValue::Kind::kNone:
      return "None";
    case PickleValue::Kind::kBool:
      return "a bool";
    case PickleValue::Kind::kInt:
      return "an int";
    case PickleValue::Kind::kFloat:
      return "a float";
    case PickleValue::Kind::kText:
      return "a string";
    case PickleValue::Kind::kBytes:
      return "bytes";
    case PickleValue::Kind::kTuple:
      return "a tuple";
    case PickleValue::Kind::kList:
      return "a list";
    case PickleValue::Kind::kDict:
      return "a dict";
    case PickleValue::Kind::kGlobal:
      return "a callable";
    case PickleValue::Kind::kDType:
      return "a numpy dtype";
    case PickleValue::Kind::kArray:
      return "a numpy array";
  }
  return "something unknown";
}

}  // namespace tiny_knn
