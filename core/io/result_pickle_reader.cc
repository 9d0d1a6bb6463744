#include <bit>
#include <span>
#include <string_view>

#include "core/io/pickle_machine.h"
#include "core/io/pickle_value.h"
#include "core/io/python_string.h"
#include "core/io/result_pickle.h"
#include "core/io/result_rows.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

using Kind = PickleValue::Kind;

// The dict at the root of a result.
class ResultDict {
 public:
  explicit ResultDict(const PickleDocument& document) : document_(document) {}

  // The value of a key, or null. As in Python, the last one counts.
  const PickleValue* Find(std::string_view key) const {
    const std::vector<int32_t>& items = Root().items;
    for (size_t i = items.size(); i >= 2; i -= 2) {
      const PickleValue& candidate = Value(items[i - 2]);
      if (candidate.kind == Kind::kText && candidate.text == key) return &Value(items[i - 1]);
    }
    return nullptr;
  }

  const PickleValue& Root() const { return Value(document_.root); }
  const PickleValue& Value(int32_t index) const {
    return document_.values[static_cast<size_t>(index)];
  }

  // "int64" as "i8", for a native array; nothing for another byte order.
  std::string_view NativeCode(const PickleValue& array) const {
    const PickleValue& dtype = Value(array.dtype);
    constexpr char kNative = std::endian::native == std::endian::little ? '<' : '>';
    const bool native = dtype.byte_order == kNative || dtype.byte_order == '=';
    return native ? dtype.text : std::string_view();
  }

  absl::Status Read(std::string_view key, std::string& out) const {
    const PickleValue* value = Find(key);
    if (value == nullptr) return absl::OkStatus();
    if (value->kind != Kind::kText) return WrongKind(key, *value, "a string");
    out = PythonUtf8ToFileName(value->text);
    return absl::OkStatus();
  }

  absl::Status Read(std::string_view key, int64_t& out) const {
    const PickleValue* value = Find(key);
    if (value == nullptr) return absl::OkStatus();
    if (value->kind != Kind::kInt) return WrongKind(key, *value, "an int");
    out = value->number;
    return absl::OkStatus();
  }

  absl::Status Read(std::string_view key, bool& out) const {
    const PickleValue* value = Find(key);
    if (value == nullptr) return absl::OkStatus();
    if (value->kind != Kind::kBool) return WrongKind(key, *value, "True or False");
    out = value->number != 0;
    return absl::OkStatus();
  }

  // The 2-D array of a key.
  absl::StatusOr<const PickleValue*> Array(std::string_view key) const {
    const PickleValue* value = Find(key);
    if (value == nullptr) {
      return absl::InvalidArgumentError(
          fmt::format("has no '{}'; expected a result of tiny-knn run", key));
    }
    if (value->kind != Kind::kArray) return WrongKind(key, *value, "a numpy array");
    if (value->shape.size() != 2) {
      return absl::InvalidArgumentError(
          fmt::format("'{}' is {}-D; expected 2-D (queries, k)", key, value->shape.size()));
    }
    return value;
  }

 private:
  static absl::Status WrongKind(std::string_view key, const PickleValue& value,
                                std::string_view expected) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is {}; expected {}", key, PickleKindName(value.kind), expected));
  }

  const PickleDocument& document_;
};

absl::Status ReadArrays(const ResultDict& dict, ResultView& result) {
  const absl::StatusOr<const PickleValue*> indices = dict.Array("indices");
  if (!indices.ok()) return indices.status();
  const absl::StatusOr<const PickleValue*> scores = dict.Array("scores");
  if (!scores.ok()) return scores.status();
  if (dict.NativeCode(**indices) != "i8") {
    return absl::InvalidArgumentError("'indices' is not int64 in native byte order");
  }
  const std::string_view score_code = dict.NativeCode(**scores);
  if (score_code != "f4" && score_code != "f8") {
    return absl::InvalidArgumentError("'scores' is not float32 or float64 in native byte order");
  }
  if ((*indices)->shape != (*scores)->shape) {
    return absl::InvalidArgumentError(fmt::format(
        "'indices' is {} x {} and 'scores' is {} x {}; expected the same shape",
        (*indices)->shape[0], (*indices)->shape[1], (*scores)->shape[0], (*scores)->shape[1]));
  }
  result.metadata.num_queries = (*indices)->shape[0];
  result.metadata.k = (*indices)->shape[1];
  result.metadata.score_dtype = score_code == "f8" ? DType::kFloat64 : DType::kFloat32;
  result.indices = (*indices)->text;
  result.scores = (*scores)->text;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ResultView> ParseResultPickle(std::span<const uint8_t> bytes) {
  absl::StatusOr<PickleDocument> parsed = ParsePickle(bytes);
  if (!parsed.ok()) return parsed.status();
  const auto document = std::make_shared<const PickleDocument>(*std::move(parsed));
  const ResultDict dict(*document);
  if (dict.Root().kind != Kind::kDict) {
    return absl::InvalidArgumentError(fmt::format(
        "holds {}; expected a dict with 'indices' and 'scores'", PickleKindName(dict.Root().kind)));
  }
  ResultView result;
  result.storage = document;
  absl::Status status;
  VisitResultFields(result.metadata, /*all=*/true, [&](std::string_view key, auto& field) {
    if (status.ok()) status = dict.Read(key, field);
  });
  if (status.ok()) status = ReadArrays(dict, result);
  if (!status.ok()) return status;
  return result;
}

}  // namespace tiny_knn
