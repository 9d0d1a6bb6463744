#include "core/io/pickle_objects.h"

#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "fmt/format.h"

namespace tiny_knn {
namespace {

using Kind = PickleValue::Kind;

struct CallableName {
  std::string_view module;
  std::string_view name;
  PickleCallable callable;
};

// numpy 2 moved its internals to numpy._core.
constexpr CallableName kCallables[] = {
    {"numpy.core.multiarray", "_reconstruct", PickleCallable::kReconstruct},
    {"numpy._core.multiarray", "_reconstruct", PickleCallable::kReconstruct},
    {"numpy.core.numeric", "_frombuffer", PickleCallable::kFromBuffer},
    {"numpy._core.numeric", "_frombuffer", PickleCallable::kFromBuffer},
    {"numpy", "ndarray", PickleCallable::kNdArray},
    {"numpy", "dtype", PickleCallable::kNumpyDType},
    {"_codecs", "encode", PickleCallable::kCodecsEncode},
    {"__builtin__", "bytes", PickleCallable::kBytesType},
    {"builtins", "bytes", PickleCallable::kBytesType},
};

absl::Status Error(std::string_view what) {
  return absl::InvalidArgumentError(fmt::format("{}", what));
}

const PickleValue& At(const PickleDocument& document, int32_t index) {
  return document.values[static_cast<size_t>(index)];
}

// Bytes of an element of a dtype like "i8"; 0: not a dtype whose size is known here.
int64_t ElementSize(std::string_view code) {
  constexpr std::string_view kKinds = "biuf";
  if (code.size() != 2 || kKinds.find(code[0]) == std::string_view::npos) return 0;
  const int64_t size = code[1] - '0';
  return size == 1 || size == 2 || size == 4 || size == 8 ? size : 0;
}

// Bytes of an array of that shape, which is checked and appended to `sizes`.
absl::StatusOr<uint64_t> ArrayBytes(const PickleValue& shape, int64_t element_size,
                                    const PickleDocument& document, std::vector<int64_t>& sizes) {
  constexpr auto kMax = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  auto bytes = static_cast<uint64_t>(element_size);
  bool empty = false;
  for (const int32_t item : shape.items) {
    const PickleValue& size = At(document, item);
    if (size.kind != Kind::kInt || size.number < 0) {
      return Error("an array's shape holds something that is no size");
    }
    if (sizes.size() == 32) return Error("an array has more than 32 dimensions");
    sizes.push_back(size.number);
    if (size.number == 0) {
      empty = true;
    } else if (bytes > kMax / static_cast<uint64_t>(size.number)) {
      return Error("an array is larger than any file");
    } else {
      bytes *= static_cast<uint64_t>(size.number);
    }
  }
  return empty ? 0 : bytes;
}

absl::Status FillArray(int32_t shape, int32_t dtype, int32_t data, const PickleDocument& document,
                       PickleValue& target) {
  const PickleValue& shape_value = At(document, shape);
  const PickleValue& dtype_value = At(document, dtype);
  const PickleValue& data_value = At(document, data);
  if (shape_value.kind != Kind::kTuple || dtype_value.kind != Kind::kDType ||
      data_value.kind != Kind::kBytes) {
    return Error(fmt::format("an array has {} as shape, {} as dtype and {} as data",
                             PickleKindName(shape_value.kind), PickleKindName(dtype_value.kind),
                             PickleKindName(data_value.kind)));
  }
  std::vector<int64_t> sizes;
  const absl::StatusOr<uint64_t> bytes =
      ArrayBytes(shape_value, ElementSize(dtype_value.text), document, sizes);
  if (!bytes.ok()) return bytes.status();
  if (data_value.text.size() != *bytes) {
    return Error(
        fmt::format("an array has {} bytes of data, {} expected", data_value.text.size(), *bytes));
  }
  target.shape = std::move(sizes);
  target.dtype = dtype;
  target.text = data_value.text;
  return absl::OkStatus();
}

// _reconstruct(numpy.ndarray, (0,), b'b'): an empty array that SetPickledState fills.
absl::StatusOr<PickleValue> CallReconstruct(const PickleValue& arguments,
                                            const PickleDocument& document) {
  const PickleValue* type = arguments.items.empty() ? nullptr : &At(document, arguments.items[0]);
  if (type == nullptr || type->kind != Kind::kGlobal ||
      type->callable != PickleCallable::kNdArray) {
    return Error("the pickle reconstructs something that is no numpy.ndarray");
  }
  PickleValue array;
  array.kind = Kind::kArray;
  return array;
}

// _frombuffer(buffer, dtype, shape, 'C'); numpy 2 may add an axis order, which C order does not
// use.
absl::StatusOr<PickleValue> CallFromBuffer(const PickleValue& arguments,
                                           const PickleDocument& document) {
  if (arguments.items.size() < 4) return Error("_frombuffer is called with too few arguments");
  const PickleValue& order = At(document, arguments.items[3]);
  if (order.kind != Kind::kText || order.text != "C") {
    return Error("found an array in Fortran order, expected C order");
  }
  PickleValue array;
  array.kind = Kind::kArray;
  const absl::Status status =
      FillArray(arguments.items[2], arguments.items[1], arguments.items[0], document, array);
  if (!status.ok()) return status;
  return array;
}

// numpy.dtype('i8', False, True).
absl::StatusOr<PickleValue> CallDType(const PickleValue& arguments,
                                      const PickleDocument& document) {
  const PickleValue* name = arguments.items.empty() ? nullptr : &At(document, arguments.items[0]);
  if (name == nullptr || name->kind != Kind::kText) return Error("a numpy.dtype has no name");
  if (ElementSize(name->text) == 0) {
    return Error(fmt::format("found dtype '{}', expected int64, float32 or float64",
                             ShownPickleText(name->text)));
  }
  PickleValue dtype;
  dtype.kind = Kind::kDType;
  dtype.text = name->text;
  return dtype;
}

absl::StatusOr<PickleValue> CallEncode(const PickleValue& arguments, PickleDocument& document,
                                       size_t& owned_budget) {
  const std::vector<int32_t>& items = arguments.items;
  if (items.size() != 2 || At(document, items[0]).kind != Kind::kText ||
      At(document, items[1]).kind != Kind::kText || At(document, items[1]).text != "latin1") {
    return Error("found an encoding that is not latin1");
  }
  const std::string_view text = At(document, items[0]).text;
  if (text.size() > owned_budget) return Error("the pickle encodes a string more than once");
  owned_budget -= text.size();
  std::string bytes;
  bytes.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto first = static_cast<uint8_t>(text[i]);
    if (first < 0x80) {
      bytes += text[i];
      continue;
    }
    const uint8_t second = i + 1 < text.size() ? static_cast<uint8_t>(text[i + 1]) : uint8_t{0};
    if ((first != 0xC2 && first != 0xC3) || (second & 0xC0) != 0x80) {
      return Error("found a character beyond latin1 in bytes");
    }
    bytes += static_cast<char>((first & 0x03) << 6 | (second & 0x3F));
    ++i;
  }
  PickleValue value;
  value.kind = Kind::kBytes;
  value.text = document.owned.emplace_back(std::move(bytes));
  return value;
}

absl::StatusOr<PickleValue> CallBytes(const PickleValue& arguments) {
  if (!arguments.items.empty()) return Error("the pickle calls bytes() with arguments");
  PickleValue value;
  value.kind = Kind::kBytes;
  return value;
}

}  // namespace

std::string ShownPickleText(std::string_view text) {
  constexpr size_t kMost = 60;
  std::string out;
  for (const char c : text.substr(0, kMost)) out += c >= ' ' && c <= '~' ? c : '?';
  return text.size() > kMost ? out + "..." : out;
}

std::optional<PickleCallable> FindPickleCallable(std::string_view module, std::string_view name) {
  for (const CallableName& known : kCallables) {
    if (known.module == module && known.name == name) return known.callable;
  }
  return std::nullopt;
}

absl::StatusOr<PickleValue> CallPickled(PickleCallable callable, const PickleValue& arguments,
                                        PickleDocument& document, size_t& owned_budget) {
  switch (callable) {
    case PickleCallable::kReconstruct:
      return CallReconstruct(arguments, document);
    case PickleCallable::kFromBuffer:
      return CallFromBuffer(arguments, document);
    case PickleCallable::kNumpyDType:
      return CallDType(arguments, document);
    case PickleCallable::kCodecsEncode:
      return CallEncode(arguments, document, owned_budget);
    case PickleCallable::kBytesType:
      return CallBytes(arguments);
    case PickleCallable::kNdArray:
      break;
  }
  return Error("the pickle calls numpy.ndarray");
}

absl::Status SetPickledState(const PickleValue& state, const PickleDocument& document,
                             PickleValue& target) {
  if (state.kind != Kind::kTuple) return Error("an object's state is no tuple");
  if (target.kind == Kind::kDType) {
    // (3, '<', None, None, None, -1, -1, 0): version, byte order, and what plain dtypes lack.
    const PickleValue* order = state.items.size() < 2 ? nullptr : &At(document, state.items[1]);
    if (order == nullptr || order->kind != Kind::kText || order->text.size() != 1) {
      return Error("a numpy.dtype has an unknown state");
    }
    target.byte_order = order->text[0];
    return absl::OkStatus();
  }
  if (target.kind != Kind::kArray) {
    return Error(fmt::format("the pickle sets the state of {}", PickleKindName(target.kind)));
  }
  // (1, shape, dtype, is_fortran, data)
  if (state.items.size() != 5) return Error("a numpy array has an unknown state");
  const PickleValue& fortran = At(document, state.items[3]);
  if ((fortran.kind != Kind::kBool && fortran.kind != Kind::kInt) || fortran.number != 0) {
    return Error("found an array in Fortran order, expected C order");
  }
  return FillArray(state.items[1], state.items[2], state.items[4], document, target);
}

}  // namespace tiny_knn
