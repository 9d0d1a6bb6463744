#include <algorithm>
#include <bit>
#include <cstring>
#include <new>
#include <span>
#include <string_view>

#include "core/io/file_util.h"
#include "core/io/mapped_file.h"
#include "core/io/pickle_machine.h"
#include "core/io/pickle_value.h"
#include "core/io/python_string.h"
#include "core/io/result_pickle.h"
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

  absl::Status Text(std::string_view key, std::string& out) const {
    const PickleValue* value = Find(key);
    if (value == nullptr) return absl::OkStatus();
    if (value->kind != Kind::kText) return WrongKind(key, *value, "a string");
    out = PythonUtf8ToFileName(value->text);
    return absl::OkStatus();
  }

  absl::Status Int(std::string_view key, int64_t& out) const {
    const PickleValue* value = Find(key);
    if (value == nullptr) return absl::OkStatus();
    if (value->kind != Kind::kInt) return WrongKind(key, *value, "an int");
    out = value->number;
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

absl::Status ReadArrays(const ResultDict& dict, ResultFile& result) {
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
  const std::string_view index_data = (*indices)->text;
  result.indices.resize(index_data.size() / sizeof(int64_t));
  if (!index_data.empty()) {
    std::memcpy(result.indices.data(), index_data.data(), index_data.size());
  }
  const std::string_view data = (*scores)->text;
  if (score_code == "f8") {
    result.metadata.score_dtype = DType::kFloat64;
    result.scores.resize(data.size() / sizeof(double));
    if (!data.empty()) std::memcpy(result.scores.data(), data.data(), data.size());
    return absl::OkStatus();
  }
  result.metadata.score_dtype = DType::kFloat32;
  result.scores.resize(data.size() / sizeof(float));
  for (size_t i = 0; i < result.scores.size(); ++i) {
    float score;
    std::memcpy(&score, data.data() + i * sizeof(float), sizeof(float));
    result.scores[i] = score;
  }
  return absl::OkStatus();
}

// The file's bytes: mapped, or read into `storage` where it cannot be mapped.
absl::StatusOr<std::span<const uint8_t>> FileBytes(const OpenedFile& file, const std::string& path,
                                                   std::unique_ptr<MappedFile>& mapping,
                                                   std::vector<std::byte>& storage) {
  std::span<const std::byte> bytes;
  if (file.stat.st_size > 0) {
    absl::StatusOr<std::unique_ptr<MappedFile>> mapped =
        MappedFile::Map(file.fd.get(), file.stat.st_size, path);
    if (mapped.ok()) {
      mapping = *std::move(mapped);
      bytes = mapping->bytes();
    } else {
      storage.resize(static_cast<size_t>(file.stat.st_size));
      absl::StatusOr<int64_t> got = ReadAt(file.fd.get(), 0, storage, path);
      if (!got.ok()) return got.status();
      bytes = std::span(storage).first(static_cast<size_t>(*got));
    }
  }
  return std::span(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

}  // namespace

absl::StatusOr<ResultFile> ParseResultPickle(std::span<const uint8_t> bytes) {
  const absl::StatusOr<PickleDocument> document = ParsePickle(bytes);
  if (!document.ok()) return document.status();
  const ResultDict dict(*document);
  if (dict.Root().kind != Kind::kDict) {
    return absl::InvalidArgumentError(fmt::format(
        "holds {}; expected a dict with 'indices' and 'scores'", PickleKindName(dict.Root().kind)));
  }
  ResultFile result;
  ResultMetadata& metadata = result.metadata;
  int64_t k = 0;
  for (const absl::Status& status :
       {dict.Text("queries_path", metadata.queries_path),
        dict.Text("docs_path", metadata.docs_path), dict.Int("k", k),
        dict.Int("batch_size", metadata.batch_size), dict.Text("dtype", metadata.dtype),
        dict.Text("device", metadata.device), dict.Text("metric", metadata.metric),
        dict.Text("tiny_knn_version", metadata.tiny_knn_version), ReadArrays(dict, result)}) {
    if (!status.ok()) return status;
  }
  return result;
}

absl::StatusOr<ResultFile> ReadResultPickle(const std::string& path) {
  absl::StatusOr<OpenedFile> file = OpenRegularFile(path, "a result of tiny-knn run (.pkl)");
  if (!file.ok()) return file.status();
  try {
    std::unique_ptr<MappedFile> mapping;
    std::vector<std::byte> storage;
    absl::StatusOr<std::span<const uint8_t>> bytes = FileBytes(*file, path, mapping, storage);
    if (!bytes.ok()) return bytes.status();
    absl::StatusOr<ResultFile> result = ParseResultPickle(*bytes);
    if (mapping != nullptr && mapping->damaged()) {
      return absl::DataLossError(fmt::format("{}: was truncated while it was read", path));
    }
    if (!result.ok()) {
      return absl::Status(result.status().code(),
                          fmt::format("{}: {}", path, std::string(result.status().message())));
    }
    return result;
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(fmt::format("{}: no memory to read it", path));
  }
}

}  // namespace tiny_knn
