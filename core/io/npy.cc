#include "core/io/npy.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <string>

#include "absl/status/status.h"
#include "core/io/python_literal.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

using Kind = PythonLiteral::Kind;

constexpr std::string_view kMagic = "\x93NUMPY";

// Text from a file, made fit for one line of a message.
std::string Quoted(std::string_view text) {
  constexpr size_t kMost = 60;
  std::string out = "'";
  for (char c : text.substr(0, kMost)) {
    if (c >= ' ' && c <= '~') {
      out += c;
    } else {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  if (text.size() > kMost) out += "...";
  return out + "'";
}

absl::Status HeaderError(std::string_view what) {
  return absl::InvalidArgumentError(fmt::format("damaged .npy header: {}", what));
}

absl::Status UnsupportedDType(std::string_view what, std::string_view descr,
                              std::string_view advice) {
  return absl::InvalidArgumentError(fmt::format("holds {} (descr {}); expected one of {}{}", what,
                                                Quoted(descr), FileDTypeNames(), advice));
}

struct ElementType {
  DType dtype = DType::kFloat32;
  bool swap_bytes = false;
};

// What a dtype that cannot be searched is called, for its message. Empty: not a dtype at all.
std::string UnsupportedName(char kind, std::string_view size) {
  const int bits = size.size() <= 2 && !size.empty() ? std::stoi(std::string(size)) * 8 : 0;
  if (bits == 0 && std::string_view("uifc").find(kind) != std::string_view::npos) return "";
  switch (kind) {
    case 'u':
      return fmt::format("uint{}", bits);
    case 'i':
      return fmt::format("int{}", bits);
    case 'f':
      return fmt::format("float{}{}", bits, bits >= 80 ? " (long double)" : "");
    case 'c':
      return fmt::format("complex{}", bits);
    case 'O':
      return "Python objects";
    case 'S':
    case 'a':
      return "byte strings";
    case 'U':
      return "strings";
    case 'M':
      return "datetime64";
    case 'm':
      return "timedelta64";
    case 'V':
      return fmt::format("raw data of {} bytes an element", size.empty() ? "0" : size);
    default:
      return "";
  }
}

std::string Advice(char kind) {
  switch (kind) {
    case 'u':
    case 'i':
    case 'f':
      return "; convert it, for example a.astype('float32')";
    case 'c':
      return "; take the real part or the magnitude, for example a.real";
    case 'O':
      return "; save an array of numbers, for example numpy.stack(list(a)).astype('float32')";
    default:
      return "";
  }
}

// "<f4" and its kin. `input_dtype` matters for raw two-byte data only.
absl::StatusOr<ElementType> ParseDescr(std::string_view descr, std::optional<DType> input_dtype) {
  if (const std::optional<DType> named = ParseDType(descr); named.has_value()) {
    return ElementType{*named, false};  // "bfloat16", as some writers put it
  }
  std::string_view rest = descr;
  char order = '=';
  if (!rest.empty() && std::string_view("<>=|").find(rest[0]) != std::string_view::npos) {
    order = rest[0];
    rest.remove_prefix(1);
  }
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const char kind = rest.empty() ? '\0' : rest[0];
  const std::string_view size = rest.empty() ? rest : rest.substr(1);
  constexpr char kForeignOrder = std::endian::native == std::endian::little ? '>' : '<';
  if (size == "1" || size == "2" || size == "4" || size == "8") {
    const int64_t bytes = size[0] - '0';
    std::optional<DType> dtype;
    for (DType candidate : {DType::kInt8, DType::kInt16, DType::kInt32, DType::kInt64}) {
      if (kind == 'i' && ItemSize(candidate) == bytes) dtype = candidate;
    }
    for (DType candidate : {DType::kFloat16, DType::kFloat32, DType::kFloat64}) {
      if (kind == 'f' && ItemSize(candidate) == bytes) dtype = candidate;
    }
    if (kind == 'b' && bytes == 1) dtype = DType::kBool;
    if (kind == 'u' && bytes == 1) dtype = DType::kUInt8;
    if (kind == 'V' && bytes == 2 && order != kForeignOrder) {
      if (input_dtype == DType::kBFloat16) return ElementType{DType::kBFloat16, false};
      return UnsupportedDType(
          "raw data of 2 bytes an element", descr,
          "; if it is bfloat16 written by numpy with ml_dtypes, pass --input-dtype bfloat16");
    }
    if (dtype.has_value()) return ElementType{*dtype, order == kForeignOrder && bytes > 1};
  }
  // A datetime carries its unit: "<M8[ns]".
  const bool dated = (kind == 'M' || kind == 'm') && !size.empty() && is_digit(size[0]);
  const bool sized = std::all_of(size.begin(), size.end(), is_digit);
  if (const std::string name = UnsupportedName(kind, sized ? size : ""); !name.empty()) {
    const bool number = kind == 'u' || kind == 'i' || kind == 'f' || kind == 'c';
    const bool plausible = number ? sized && !size.empty() && size.size() <= 2 : sized || dated;
    if (plausible) return UnsupportedDType(name, descr, Advice(kind));
  }
  return UnsupportedDType("an unknown dtype", descr, "");
}

absl::StatusOr<ElementType> ParseElementType(const PythonLiteral& descr,
                                             std::optional<DType> input_dtype) {
  if (descr.kind == Kind::kList) {
    return absl::InvalidArgumentError(fmt::format(
        "holds a structured dtype of {} fields; expected one of {}; save one field, for example "
        "a['name'], or use numpy.lib.recfunctions.structured_to_unstructured",
        descr.items.size(), FileDTypeNames()));
  }
  if (descr.kind == Kind::kTuple) {
    return absl::InvalidArgumentError(
        fmt::format("holds a subarray dtype (descr is a tuple); expected one of {}; save a plain "
                    "2-D array",
                    FileDTypeNames()));
  }
  if (descr.kind != Kind::kString) {
    return HeaderError(fmt::format("'descr' is {}, expected a string like '<f4'",
                                   PythonLiteralKindName(descr.kind)));
  }
  absl::StatusOr<ElementType> type = ParseDescr(descr.text, input_dtype);
  if (type.ok() && input_dtype.has_value() && *input_dtype != type->dtype) {
    return absl::InvalidArgumentError(
        fmt::format("--input-dtype {} contradicts the file, which holds {} (descr {}); leave "
                    "--input-dtype out",
                    DTypeName(*input_dtype), DTypeName(type->dtype), Quoted(descr.text)));
  }
  return type;
}

// "(3, 4, 5)", cut short when long.
std::string ShapeText(const PythonLiteral& shape) {
  std::string out = "(";
  for (size_t i = 0; i < shape.items.size(); ++i) {
    if (i == 8) return out + ", ...)";
    const PythonLiteral& item = shape.items[i];
    if (i > 0) out += ", ";
    out += item.kind == Kind::kInt
               ? (item.int_overflow ? item.text.substr(0, 40) : fmt::format("{}", item.number))
               : std::string(PythonLiteralKindName(item.kind));
  }
  return out + (shape.items.size() == 1 ? ",)" : ")");
}

absl::Status ParseShape(const PythonLiteral& shape, NpyHeader& header) {
  if (shape.kind != Kind::kTuple) {
    return HeaderError(fmt::format("'shape' is {}, expected a tuple (rows, dim)",
                                   PythonLiteralKindName(shape.kind)));
  }
  for (const PythonLiteral& item : shape.items) {
    if (item.kind != Kind::kInt) {
      return HeaderError(fmt::format("'shape' {} holds {}, expected ints", ShapeText(shape),
                                     PythonLiteralKindName(item.kind)));
    }
    if (item.int_overflow ? item.text[0] == '-' : item.number < 0) {
      return HeaderError(fmt::format("'shape' {} is negative", ShapeText(shape)));
    }
  }
  if (shape.items.size() != 2) {
    const std::string_view advice = shape.items.empty()       ? "it holds a single value"
                                    : shape.items.size() == 1 ? "for one row, a.reshape(1, -1)"
                                                              : "for example a.reshape(-1, "
                                                                "a.shape[-1])";
    return absl::InvalidArgumentError(
        fmt::format("is {}-D with shape {}; expected 2-D (rows, dim): reshape it ({})",
                    shape.items.size(), ShapeText(shape), advice));
  }
  const auto too_large = [&shape] {
    return HeaderError(
        fmt::format("'shape' {} is larger than any file (2^63 bytes)", ShapeText(shape)));
  };
  if (shape.items[0].int_overflow || shape.items[1].int_overflow) return too_large();
  header.rows = shape.items[0].number;
  header.dim = shape.items[1].number;
  // Each dimension alone must fit too: a row's bytes are computed even when there are no rows.
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  const int64_t item = ItemSize(header.dtype);
  if (header.dim > kMax / item || header.rows > kMax / item) return too_large();
  if (header.dim > 0 && header.rows > (kMax - header.data_offset) / item / header.dim) {
    return too_large();
  }
  return absl::OkStatus();
}

// Fills everything but data_offset, which is known already.
absl::Status ParseHeaderDict(std::string_view text, std::optional<DType> input_dtype,
                             NpyHeader& header) {
  absl::StatusOr<PythonLiteral> dict = ParsePythonLiteral(text);
  if (!dict.ok()) return HeaderError(std::string(dict.status().message()));
  if (dict->kind != Kind::kDict) {
    return HeaderError(
        fmt::format("found {}, expected a dict with 'descr', 'fortran_order' and "
                    "'shape'",
                    PythonLiteralKindName(dict->kind)));
  }
  const PythonLiteral* descr = nullptr;
  const PythonLiteral* order = nullptr;
  const PythonLiteral* shape = nullptr;
  for (size_t i = 0; i < dict->items.size(); i += 2) {
    const PythonLiteral& key = dict->items[i];
    if (key.kind != Kind::kString) {
      return HeaderError(
          fmt::format("found {} as a key, expected a string", PythonLiteralKindName(key.kind)));
    }
    const PythonLiteral** slot = key.text == "descr"           ? &descr
                                 : key.text == "fortran_order" ? &order
                                 : key.text == "shape"         ? &shape
                                                               : nullptr;
    if (slot == nullptr) {
      return HeaderError(fmt::format(
          "unknown key {}, expected 'descr', 'fortran_order' and 'shape'", Quoted(key.text)));
    }
    if (*slot != nullptr) return HeaderError(fmt::format("key {} twice", Quoted(key.text)));
    *slot = &dict->items[i + 1];
  }
  for (const auto& [slot, key] :
       {std::pair(descr, "descr"), std::pair(order, "fortran_order"), std::pair(shape, "shape")}) {
    if (slot == nullptr) return HeaderError(fmt::format("key '{}' is missing", key));
  }
  if (order->kind != Kind::kBool) {
    return HeaderError(fmt::format("'fortran_order' is {}, expected True or False",
                                   PythonLiteralKindName(order->kind)));
  }
  header.fortran_order = order->number != 0;
  absl::StatusOr<ElementType> type = ParseElementType(*descr, input_dtype);
  if (!type.ok()) return type.status();
  header.dtype = type->dtype;
  header.swap_bytes = type->swap_bytes;
  return ParseShape(*shape, header);
}

// What a file that is no .npy file may be, from its first bytes.
std::string_view GuessedFormat(std::string_view start) {
  if (start.starts_with("PK\x03\x04")) {
    return " (it looks like a zip or .npz file: save the array in it with numpy.save)";
  }
  if (start.starts_with("\x80")) return " (it looks like a pickle: save the array with numpy.save)";
  if (start.starts_with("\x89HDF")) return " (it looks like an HDF5 file)";
  if (start.starts_with("PAR1")) return " (it looks like a Parquet file)";
  return "";
}

}  // namespace

absl::StatusOr<NpyHeader> ParseNpyHeader(std::span<const uint8_t> start,
                                         std::optional<DType> input_dtype) {
  const std::string_view bytes(reinterpret_cast<const char*>(start.data()), start.size());
  if (bytes.empty()) return absl::InvalidArgumentError("is empty; expected an .npy file");
  if (!bytes.starts_with(kMagic)) {
    const bool cut = kMagic.starts_with(bytes);
    return absl::InvalidArgumentError(
        cut ? fmt::format("ends after {} bytes; expected an .npy file", bytes.size())
            : fmt::format("is not an .npy file: it starts with {}, expected '\\x93NUMPY'{}",
                          Quoted(bytes.substr(0, kMagic.size())), GuessedFormat(bytes)));
  }
  const auto truncated = [&bytes](size_t expected) {
    return absl::InvalidArgumentError(fmt::format(
        "ends within the .npy header: {} bytes found, {} expected", bytes.size(), expected));
  };
  if (bytes.size() < 8) return truncated(10);
  const int major = start[6];
  const int minor = start[7];
  if (major < 1 || major > 3 || minor != 0) {
    return absl::InvalidArgumentError(fmt::format(
        "is an .npy file of version {}.{}; expected version 1.0, 2.0 or 3.0", major, minor));
  }
  const size_t length_bytes = major == 1 ? 2 : 4;
  const size_t prefix = 8 + length_bytes;
  if (bytes.size() < prefix) return truncated(prefix);
  uint32_t length = 0;
  for (size_t i = 0; i < length_bytes; ++i) length |= uint32_t{start[8 + i]} << (8 * i);
  if (length > kMaxNpyHeaderBytes) {
    return HeaderError(
        fmt::format("its length is {} bytes, expected at most {}", length, kMaxNpyHeaderBytes));
  }
  if (bytes.size() - prefix < length) return truncated(prefix + length);
  NpyHeader header;
  header.data_offset = static_cast<int64_t>(prefix + length);
  absl::Status status = ParseHeaderDict(bytes.substr(prefix, length), input_dtype, header);
  if (!status.ok()) return status;
  return header;
}

}  // namespace tiny_knn
